import { Counter, Gauge, type Registry } from 'prom-client'
import type { PeerStatus, ShoalNode } from '../node/types.ts'
import { setTo } from './metric-values.ts'

export interface PeerMetrics {
  update: (peers: PeerStatus[], connected: number) => void
  stop: () => void
}

/** Peers in sums: which one it is stands in `shoal peers`, for a label there are too many. */
export function createPeerMetrics (registry: Registry, node: ShoalNode): PeerMetrics {
  const registers = [registry]
  const received = new Counter({ name: 'shoal_received_bytes_total', help: 'Block bytes received from peers', registers })
  const sent = new Counter({ name: 'shoal_sent_bytes_total', help: 'Block bytes sent to peers', registers })
  const connects = new Counter({ name: 'shoal_peer_connects_total', help: 'Peers that were connected', registers })
  const disconnects = new Counter({ name: 'shoal_peer_disconnects_total', help: 'Peers that were disconnected', registers })
  const bans = new Counter({ name: 'shoal_peer_bans_total', help: 'Peers banned for misbehaving', registers })
  const peers = new Gauge({ name: 'shoal_peers', help: 'Peers known', labelNames: ['state'], registers })
  const directions = new Gauge({ name: 'shoal_peer_connections', help: 'Peers connected, by who dialled', labelNames: ['direction'], registers })
  const transports = new Gauge({ name: 'shoal_peer_transports', help: 'Peers connected with which block bytes were exchanged, by what carried them', labelNames: ['transport'], registers })
  const receiveRate = new Gauge({ name: 'shoal_receive_bytes_per_second', help: 'Rate of block bytes from peers over the last seconds', registers })
  const sendRate = new Gauge({ name: 'shoal_send_bytes_per_second', help: 'Rate of block bytes to peers over the last seconds', registers })
  const roundTrip = new Gauge({ name: 'shoal_peer_round_trip_seconds', help: 'Round trip to connected peers; absent while none is measured', labelNames: ['stat'], registers })
  const totals = { received: new PeerTotal(peer => peer.receivedBytes), sent: new PeerTotal(peer => peer.sentBytes) }
  const offs = [
    node.events.on('peer:connected', () => { connects.inc() }),
    node.events.on('peer:disconnected', () => { disconnects.inc() }),
    node.events.on('peer:banned', () => { bans.inc() })
  ]
  return {
    stop: () => { for (const off of offs) off() },
    update: (known, connectedCount) => {
      setTo(received, totals.received.update(known))
      setTo(sent, totals.sent.update(known))
      const connected = known.filter(peer => peer.connected)
      peers.set({ state: 'connected' }, connectedCount)
      peers.set({ state: 'banned' }, known.filter(peer => peer.banned).length)
      for (const direction of ['inbound', 'outbound'] as const) directions.set({ direction }, connected.filter(peer => peer.direction === direction).length)
      for (const transport of ['lane', 'stream'] as const) transports.set({ transport }, connected.filter(peer => peer.transport === transport).length)
      receiveRate.set(known.reduce((sum, peer) => sum + peer.receiveRate, 0))
      sendRate.set(known.reduce((sum, peer) => sum + peer.sendRate, 0))
      const measured = connected.map(peer => peer.latencyMs).filter(latency => latency !== undefined).sort((a, b) => a - b)
      const median = measured[measured.length >> 1]
      const longest = measured.at(-1)
      if (median === undefined || longest === undefined) roundTrip.reset()
      else {
        roundTrip.set({ stat: 'median' }, median / 1000)
        roundTrip.set({ stat: 'max' }, longest / 1000)
      }
    }
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
