import type { Counter, Gauge } from 'prom-client'

/** Counters whose truth is kept elsewhere. */
export function setTo (counter: Counter, value: number): void {
  counter.reset()
  counter.inc(value)
}

export function setOrRemove (gauge: Gauge, value: number | undefined): void {
  if (value === undefined) gauge.remove()
  else gauge.set(value)
}
