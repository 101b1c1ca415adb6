import { systemClock, type Clock } from '../../src/base/index.ts'

/** On it everything that waits waits `times` shorter, the waits that no setting changes included; the time of day is the real one. */
export function fastClock (times: number): Clock {
  return {
    now: () => systemClock.now(),
    monotonic: () => systemClock.monotonic() * times,
    setTimeout: (fn, delayMs) => systemClock.setTimeout(fn, delayMs / times)
  }
}
