import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Gauge, collectDefaultMetrics, type Registry } from 'prom-client'

/** How often the event loop is looked at. prom-client's own ten milliseconds wake an idle daemon a hundred times a second. */
const LOOK_MS = 100
/** The longest that a timer waits: prom-client's own look never comes. */
const NEVER_MS = 2 ** 31 - 1
const LAG = 'shoal_nodejs_eventloop_lag'

/** Those of the whole process: prom-client's, but for those of the event loop. The observers live as long as the process. */
export function createProcessMetrics (registry: Registry): void {
  collectDefaultMetrics({ register: registry, prefix: 'shoal_', eventLoopMonitoringPrecision: NEVER_MS })
  for (const { name } of registry.getMetricsAsArray()) if (name.startsWith(LAG)) registry.removeSingleMetric(name)
  const looks = monitorEventLoopDelay({ resolution: LOOK_MS })
  looks.enable()
  /** `value`: nanoseconds between two looks. */
  const gauge = (name: string, what: string, value: () => number): void => {
    new Gauge({ name: `${LAG}_${name}_seconds`, help: `How late the event loop was since the last scrape: ${what}`, registers: [registry], collect () { this.set(looks.count === 0 ? 0 : Math.max(0, value() / 1e6 - LOOK_MS) / 1_000) } })
  }
  gauge('mean', 'mean', () => looks.mean)
  gauge('p50', 'median', () => looks.percentile(50))
  gauge('p99', '99th percentile', () => looks.percentile(99))
  // Read last: the others have been by then.
  gauge('max', 'longest', () => {
    const { max } = looks
    looks.reset()
    return max
  })
}
