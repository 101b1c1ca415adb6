import { Counter, Gauge, type Registry } from 'prom-client'
import type { OriginStatus } from '../node/types.ts'
import { setTo } from './metric-values.ts'

/** What came from the upstream, and what came from peers instead. Zero without hf.upstream. */
export function createOriginMetrics (registry: Registry): (status: OriginStatus | undefined) => void {
  const registers = [registry]
  const bytes = new Counter({ name: 'shoal_origin_received_bytes_total', help: 'Bytes received from the upstream Hub', registers })
  const requests = new Counter({ name: 'shoal_origin_requests_total', help: 'Requests to the upstream Hub, by what became of them', labelNames: ['result'], registers })
  const models = new Counter({ name: 'shoal_origin_models_total', help: 'Models of the upstream: fetched from it by this node, shared by peers instead, or failed', labelNames: ['result'], registers })
  const running = new Gauge({ name: 'shoal_origin_fetches', help: 'Models of the upstream on their way, by what they wait for', labelNames: ['phase'], registers })
  const left = new Gauge({ name: 'shoal_origin_remaining_bytes', help: 'Bytes that this node still has to fetch from the upstream', registers })
  return status => {
    const counters = status?.counters
    const fetches = status?.fetches ?? []
    setTo(bytes, counters?.bytes ?? 0)
    requests.reset()
    for (const result of ['ok', 'refused', 'busy', 'failed'] as const) requests.inc({ result }, counters?.requests[result] ?? 0)
    models.reset()
    for (const result of ['fetched', 'shared', 'failed'] as const) models.inc({ result }, counters?.[result] ?? 0)
    for (const phase of ['asking', 'waiting', 'fetching', 'publishing'] as const) running.set({ phase }, fetches.filter(fetch => fetch.phase === phase).length)
    left.set(fetches.filter(({ phase }) => phase === 'fetching').reduce((sum, { bytesTotal, bytesDone }) => sum + Math.max(0, bytesTotal - bytesDone), 0))
  }
}
