import assert from 'node:assert/strict'
import type { Clock } from '../../../src/base/index.ts'
import { within } from '../../../src/discovery/deadline.ts'

/** Timers fire when the test says so, however late. */
class HeldUpClock implements Clock {
  time = 0
  timers: Array<{ fn: () => void, due: number }> = []
  now (): number { return this.time }
  monotonic (): number { return this.time }
  setTimeout (fn: () => void, delayMs: number): () => void {
    const timer = { fn, due: this.time + delayMs }
    this.timers.push(timer)
    return () => { this.timers = this.timers.filter(other => other !== timer) }
  }

  /** What is due by then fires at `time`. */
  fireAt (time: number): void {
    this.time = time
    const due = this.timers.filter(timer => timer.due <= time)
    this.timers = this.timers.filter(timer => timer.due > time)
    for (const { fn } of due) fn()
  }
}

describe('a deadline', () => {
  const waiting = async (signal: AbortSignal): Promise<never> => await new Promise((_resolve, reject) => { signal.addEventListener('abort', () => { reject(signal.reason as Error) }) })

  it('ends what takes too long', async () => {
    const clock = new HeldUpClock()
    const work = within(clock, 5_000, 'asking', new AbortController().signal, waiting)
    clock.fireAt(5_010)
    await assert.rejects(work, { name: 'PeerTimeoutError', message: 'asking took longer than 5000 ms' })
    assert.equal(clock.timers.length, 0)
  })

  it('waits anew when this process was held up itself, a few times', async () => {
    const clock = new HeldUpClock()
    let ended = false
    const work = within(clock, 5_000, 'asking', new AbortController().signal, waiting).finally(() => { ended = true })
    for (const time of [9_000, 20_000, 40_000]) {
      clock.fireAt(time)
      await Promise.resolve()
      assert.ok(!ended)
    }
    clock.fireAt(60_000)
    await assert.rejects(work, { name: 'PeerTimeoutError' })
  })

  it('leaves no timer, and ends with the signal', async () => {
    const clock = new HeldUpClock()
    assert.equal(await within(clock, 5_000, 'asking', new AbortController().signal, async () => await Promise.resolve(7)), 7)
    assert.equal(clock.timers.length, 0)
    const stop = new AbortController()
    const work = within(clock, 5_000, 'asking', stop.signal, waiting)
    stop.abort(new Error('enough'))
    await assert.rejects(work, { message: 'enough' })
    assert.equal(clock.timers.length, 0)
  })
})
