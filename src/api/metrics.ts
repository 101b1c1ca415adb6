import { Counter, Gauge, Registry, collectDefaultMetrics } from 'prom-client'
import type { NodeStatus, PeerStatus, ShoalNode } from '../node/types.ts'
import { setOrRemove, setTo } from './metric-values.ts'
import { createReplicationMetrics } from './replication-metrics.ts'

export interface Metrics {
  contentType: string
  /** The whole exposition, as of now. */
  text: () => Promise<string>
  /** One answered request. `route` is the pattern, never the path: no CID becomes a label. */
  request: (method: string, route: string, status: number) => void
  /** Listens to the node no more. */
  stop: () => void
}

/**
 * What Prometheus reads: one registry for each server, one prefix, base units, and no label whose values grow with the
 * swarm. `processMetrics` adds those of the whole process; they install observers that live as long as the process, so
 * only a program that is nothing but a daemon asks for them.
 */
export function createMetrics (node: ShoalNode, init: { processMetrics: boolean }): Metrics {
  const registry = new Registry()
  const requests = new Counter({
    name: 'shoal_http_requests_total', help: 'Requests answered by the API', labelNames: ['method', 'route', 'status'], registers: [registry]
  })
  const received = new Counter({ name: 'shoal_received_bytes_total', help: 'Block bytes received from peers', registers: [registry] })
  const sent = new Counter({ name: 'shoal_sent_bytes_total', help: 'Block bytes sent to peers', registers: [registry] })
  const announced = new Counter({ name: 'shoal_announced_keys_total', help: 'Announcements sent', registers: [registry] })
  const announceFailed = new Counter({ name: 'shoal_announce_failures_total', help: 'Announcements that failed', registers: [registry] })
  const lost = new Counter({ name: 'shoal_blocks_lost_total', help: 'Blocks found bad or gone on this disk', registers: [registry] })
  const gauges = makeGauges(registry)
  const replication = createReplicationMetrics(registry, node)
  if (init.processMetrics) collectDefaultMetrics({ register: registry, prefix: 'shoal_' })

  const totals = {
    received: new PeerTotal(peer => peer.receivedBytes),
    sent: new PeerTotal(peer => peer.sentBytes)
  }
  return {
    contentType: registry.contentType,
    request: (method, route, status) => { requests.inc({ method, route, status }) },
    stop: () => { replication.stop() },
    text: async () => {
      const status = await node.status()
      const peers = node.peers()
      setTo(received, totals.received.update(peers))
      setTo(sent, totals.sent.update(peers))
      setTo(announced, status.announce.announced)
      setTo(announceFailed, status.announce.failed)
      setTo(lost, status.blocksLost)
      gauges(status, peers)
      replication.update(status.replication)
      return await registry.metrics()
    }
  }
}

function makeGauges (registry: Registry): (status: NodeStatus, peers: PeerStatus[]) => void {
  const gauge = <Label extends string>(name: string, help: string, labelNames: Label[] = []): Gauge<Label> => new Gauge({ name: `shoal_${name}`, help, labelNames, registers: [registry] })
  const models = gauge('models', 'Models held here', ['state'])
  const modelBytes = gauge('model_bytes', 'Bytes present of the models held here')
  const transfers = gauge('transfers', 'Loads that run now')
  const peers = gauge('peers', 'Peers known', ['state'])
  const receiveRate = gauge('receive_bytes_per_second', 'Rate of block bytes from peers over the last seconds')
  const sendRate = gauge('send_bytes_per_second', 'Rate of block bytes to peers over the last seconds')
  const keys = gauge('announce_keys', 'Things kept announced')
  const backlog = gauge('announce_backlog_keys', 'Things whose announcement is due')
  const lag = gauge('announce_lag_seconds', 'How late the oldest due announcement is')
  const held = gauge('storage_held_bytes', 'Bytes of blocks held')
  const quota = gauge('storage_quota_bytes', 'What storage.quota allows; absent without a quota')
  const free = gauge('storage_free_bytes', 'Bytes free on the data volume')
  const writable = gauge('storage_writable', '1 when the data volume takes writes, 0 when it went read-only')
  const slots = gauge('storage_slots', 'Block slots in memory', ['state'])
  const uptime = gauge('uptime_seconds', 'Since the node started')
  const problems = gauge('problems', 'Things an operator should look at: see shoal status')
  const info = gauge('info', 'Always 1', ['version'])
  return (status, known) => {
    models.set({ state: 'complete' }, status.models.complete)
    models.set({ state: 'partial' }, status.models.count - status.models.complete)
    modelBytes.set(status.models.bytes)
    transfers.set(status.transfers)
    peers.set({ state: 'connected' }, status.peersConnected)
    peers.set({ state: 'banned' }, known.filter(peer => peer.banned).length)
    receiveRate.set(known.reduce((sum, peer) => sum + peer.receiveRate, 0))
    sendRate.set(known.reduce((sum, peer) => sum + peer.sendRate, 0))
    keys.set(status.announce.keys)
    backlog.set(status.announce.backlog)
    lag.set(status.announce.lagMs / 1000)
    held.set(status.storage.heldBytes)
    setOrRemove(quota, status.storage.quotaBytes)
    setOrRemove(free, status.storage.volumeFreeBytes)
    writable.set(status.storage.writable ? 1 : 0)
    slots.set({ state: 'free' }, status.storage.slots.free)
    slots.set({ state: 'used' }, status.storage.slots.size - status.storage.slots.free)
    uptime.set(status.uptimeSeconds)
    problems.set(status.problems.length)
    info.set({ version: status.version }, 1)
  }
}

/** A total over peers that never falls, though the node may forget a peer, and one that comes back starts at zero. */
class PeerTotal {
  readonly #of: (peer: PeerStatus) => number
  #last = new Map<string, number>()
  #total = 0

  constructor (of: (peer: PeerStatus) => number) { this.#of = of }

  update (peers: PeerStatus[]): number {
    const now = new Map<string, number>()
    for (const peer of peers) {
      const bytes = this.#of(peer)
      const before = this.#last.get(peer.peerId) ?? 0
      this.#total += bytes >= before ? bytes - before : bytes
      now.set(peer.peerId, bytes)
    }
    this.#last = now
    return this.#total
  }
}
