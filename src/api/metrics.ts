import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { NodeStatus, ShoalNode } from '../node/types.ts'
import { EndpointTraffic, createEndpointMetrics } from './endpoint-metrics.ts'
import { createLoadMetrics } from './load-metrics.ts'
import { setOrRemove, setTo } from './metric-values.ts'
import { createOriginMetrics } from './origin-metrics.ts'
import { createPeerMetrics } from './peer-metrics.ts'
import { createProcessMetrics } from './process-metrics.ts'
import { createReplicationMetrics } from './replication-metrics.ts'

export interface Metrics {
  contentType: string
  /** The whole exposition, as of now. */
  text: () => Promise<string>
  /** One answered request. `route` is the pattern, never the path: no CID becomes a label. `seconds` until its head was ready; a stream goes on after that. */
  request: (method: string, route: string, status: number, seconds: number) => void
  /** Listens to the node no more. */
  stop: () => void
}

/** Most answers come from memory; one that waits for a range, or has to read a disk, takes longer. */
const ANSWER_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30]

/**
 * What Prometheus reads: one registry for each server, one prefix, base units, and no label whose values grow with the
 * swarm. `processMetrics` adds those of the whole process; they install observers that live as long as the process, so
 * only a program that is nothing but a daemon asks for them.
 */
export function createMetrics (node: ShoalNode, init: { processMetrics: boolean, endpoint?: EndpointTraffic | undefined }): Metrics {
  const registry = new Registry()
  const requests = new Counter({
    name: 'shoal_http_requests_total', help: 'Requests answered by the API', labelNames: ['method', 'route', 'status'], registers: [registry]
  })
  const answerSeconds = new Histogram({
    name: 'shoal_http_request_seconds', help: 'From a request to the API to the head of its answer', buckets: ANSWER_SECONDS, registers: [registry]
  })
  const announced = new Counter({ name: 'shoal_announced_keys_total', help: 'Announcements sent', registers: [registry] })
  const announceFailed = new Counter({ name: 'shoal_announce_failures_total', help: 'Announcements that failed', registers: [registry] })
  const lost = new Counter({ name: 'shoal_blocks_lost_total', help: 'Blocks found bad or gone on this disk', registers: [registry] })
  const readOnly = new Counter({ name: 'shoal_storage_read_only_total', help: 'Times the data volume went read-only', registers: [registry] })
  const gauges = makeGauges(registry)
  const peers = createPeerMetrics(registry, node)
  const loads = createLoadMetrics(registry, node)
  const replication = createReplicationMetrics(registry, node)
  const origin = createOriginMetrics(registry)
  const endpoint = createEndpointMetrics(registry, init.endpoint ?? new EndpointTraffic())
  if (init.processMetrics) createProcessMetrics(registry)

  const collect = async (): Promise<string> => {
    const status = await node.status()
    peers.update(node.peers(), status.peersConnected)
    loads.update()
    setTo(announced, status.announce.announced)
    setTo(announceFailed, status.announce.failed)
    setTo(lost, status.blocksLost)
    gauges(status)
    replication.update(status.replication)
    origin(status.origin)
    return await registry.metrics()
  }
  /** Who asks meanwhile gets the same, so that many readers cost no more than one. */
  let collecting: Promise<string> | undefined
  const off = node.events.on('volume:state', ({ writable }) => { if (!writable) readOnly.inc() })
  return {
    contentType: registry.contentType,
    request: (method, route, status, seconds) => {
      requests.inc({ method, route, status })
      answerSeconds.observe(seconds)
    },
    stop: () => {
      off()
      peers.stop()
      loads.stop()
      replication.stop()
      endpoint.stop()
    },
    text: async () => await (collecting ??= collect().finally(() => { collecting = undefined }))
  }
}

function makeGauges (registry: Registry): (status: NodeStatus) => void {
  const gauge = <Label extends string>(name: string, help: string, labelNames: Label[] = []): Gauge<Label> => new Gauge({ name: `shoal_${name}`, help, labelNames, registers: [registry] })
  const models = gauge('models', 'Models held here', ['state'])
  const modelBytes = gauge('model_bytes', 'Bytes present of the models held here')
  const transfers = gauge('transfers', 'Loads that run now')
  const pinned = gauge('models_pinned', 'Models held here that are never evicted because they are pinned')
  const sweptAt = gauge('announce_swept_timestamp_seconds', 'When everything was last announced, seconds since 1970; absent before the first time')
  const directIo = gauge('storage_direct_io', '1 when block writes bypass the page cache')
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
  return status => {
    models.set({ state: 'complete' }, status.models.complete)
    models.set({ state: 'partial' }, status.models.count - status.models.complete)
    modelBytes.set(status.models.bytes)
    transfers.set(status.transfers)
    pinned.set(status.models.pinned)
    setOrRemove(sweptAt, status.announce.sweptAt === undefined ? undefined : status.announce.sweptAt / 1000)
    directIo.set(status.storage.directIo ? 1 : 0)
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
