import assert from 'node:assert/strict'
import { systemClock, type Clock } from '../../../src/base/index.ts'
import { TokenBucket } from '../../../src/discovery/link-limiter.ts'

/** Time that passes only when told to. */
class ManualClock implements Clock {
  #now = 0
  #timers: Array<{ at: number, fn: () => void }> = []
  get timers (): number { return this.#timers.length }
  now = (): number => this.#now
  monotonic = (): number => this.#now
  setTimeout = (fn: () => void, delayMs: number): () => void => {
    const timer = { at: this.#now + delayMs, fn }
    this.#timers.push(timer)
    return () => { this.#timers = this.#timers.filter(other => other !== timer) }
  }

  advance (ms: number): void {
    const end = this.#now + ms
    for (;;) {
      const next = this.#timers.filter(timer => timer.at <= end).sort((a, b) => a.at - b.at)[0]
      if (next === undefined) break
      this.#timers = this.#timers.filter(timer => timer !== next)
      this.#now = next.at
      next.fn()
    }
    this.#now = end
  }
}

const RATE = 1_000_000
const SLICE = 64 * 1024

describe('a token bucket', () => {
  it('lets through its rate and no more, shared evenly between those who wait', () => {
    const clock = new ManualClock()
    const bucket = new TokenBucket(RATE, clock)
    const passed = [0, 0, 0]
    const run = (who: number): void => {
      while (bucket.tryTake(SLICE)) passed[who] = (passed[who] ?? 0) + SLICE
      bucket.wait(() => { bucket.force(SLICE); passed[who] = (passed[who] ?? 0) + SLICE; run(who) })
    }
    for (const who of passed.keys()) run(who)
    clock.advance(20_000)
    const total = passed.reduce((sum, bytes) => sum + bytes, 0)
    assert.ok(Math.abs(total / (20 * RATE) - 1) < 0.02, `${total} bytes in 20 s`)
    assert.ok(Math.max(...passed) - Math.min(...passed) <= 2 * SLICE, passed.join(' '))
  })

  it('saves up little while idle', () => {
    const clock = new ManualClock()
    const bucket = new TokenBucket(RATE, clock)
    clock.advance(3_600_000)
    let passed = 0
    while (bucket.tryTake(1024)) passed += 1024
    assert.ok(passed <= 64 * 1024 + 1024, `${passed} bytes at once`)
  })

  it('leaves no timer when nobody waits', () => {
    const clock = new ManualClock()
    const bucket = new TokenBucket(RATE, clock)
    bucket.force(10 * RATE)
    const cancel = bucket.wait(() => { assert.fail('cancelled') })
    assert.equal(clock.timers, 1)
    cancel()
    cancel()
    assert.equal(clock.timers, 0)
    clock.advance(60_000)
  })

  it('refuses a rate that is none', () => {
    for (const rate of [0, -1, Number.NaN]) assert.throws(() => new TokenBucket(rate, systemClock), { name: 'UsageError' })
  })
})
