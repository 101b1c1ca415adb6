import assert from 'node:assert/strict'
import { MiB, silentLogger, type Clock } from '../../../src/base/index.ts'
import { Pulls, type PullShard } from '../../../src/replication/pulls.ts'
import type { PullJob } from '../../../src/replication/types.ts'

/** Time that goes on when everybody waits. */
class Time implements Clock {
  at = 0
  readonly #timers: Array<{ at: number, fn: () => void }> = []

  now (): number { return this.at }
  monotonic (): number { return this.at }
  setTimeout (fn: () => void, delayMs: number): () => void {
    const timer = { at: this.at + delayMs, fn }
    this.#timers.push(timer)
    return () => { const at = this.#timers.indexOf(timer); if (at >= 0) this.#timers.splice(at, 1) }
  }

  async run (): Promise<void> {
    for (;;) {
      await new Promise(resolve => { setImmediate(resolve) })
      this.#timers.sort((a, b) => a.at - b.at)
      const next = this.#timers.shift()
      if (next === undefined) return
      this.at = next.at
      next.fn()
    }
  }
}

function job (shard: number, urgent = false): PullJob { return { model: 'm', shard, from: [], urgent } }

describe('pulls', () => {
  const paced = (bytes: number): PullShard => async (_, { pace }) => {
    for (let at = 0; at < bytes; at += 16 * MiB) await pace(16 * MiB)
    return bytes
  }

  it('keep to what is less by the hour', async () => {
    const time = new Time()
    const allDay = { from: 0, to: 1440 }
    const another = { from: (new Date(0).getHours() * 60 + 120) % 1440, to: (new Date(0).getHours() * 60 + 180) % 1440 }
    const pulls = new Pulls({ clock: time, logger: silentLogger, pullShard: paced(160 * MiB), backgroundRates: [{ ...allDay, bytesPerSecond: 4 * MiB }, { ...another, bytesPerSecond: MiB }] }, 32 * MiB, () => undefined)
    pulls.start(job(0))
    await time.run()
    // What the bucket lets through at once is not waited for.
    assert(time.at >= (160 - 32 - 16) / 4 * 1000 && time.at <= 160 / 4 * 1000, `${time.at} ms`)
  })

  it('share one cap, which the urgent ignore', async () => {
    const time = new Time()
    const done: Array<[number, number]> = []
    const pulls = new Pulls({ clock: time, logger: silentLogger, pullShard: paced(160 * MiB) }, 32 * MiB, ({ shard }, ok) => { assert.ok(ok); done.push([shard, time.at]) })
    pulls.start(job(1))
    pulls.start(job(2))
    pulls.start(job(9, true))
    assert.equal(pulls.running, 3)
    await time.run()
    assert.deepEqual(new Set(done.map(([shard]) => shard)), new Set([1, 2, 9]))
    assert.deepEqual(done[0], [9, 0])
    // The urgent one's bytes count too: 480 MiB at 32 MiB a second, less a burst of one second and the last range each.
    const last = done.at(-1)?.[1] ?? 0
    assert.ok(last > 12_000 && last < 15_500, `${last} ms`)
  })

  it('that were cancelled say nothing more, and may be started again', async () => {
    const time = new Time()
    const told: Array<[number, boolean]> = []
    const pulls = new Pulls({ clock: time, logger: silentLogger, pullShard: paced(64 * MiB) }, MiB, ({ shard }, ok) => { told.push([shard, ok]) })
    pulls.start(job(1))
    pulls.cancel('m', 1)
    pulls.cancel('m', 7)
    pulls.start(job(1, true))
    await time.run()
    assert.deepEqual(told, [[1, true]])
    assert.equal(pulls.running, 0)
  })

  it('that fail are told so; stop ends all and leaves no timer', async () => {
    const time = new Time()
    const told: boolean[] = []
    const failing: PullShard = async ({ shard }, context) => { if (shard === 1) throw new Error('no'); return await paced(64 * MiB)(job(shard), context) }
    const pulls = new Pulls({ clock: time, logger: silentLogger, pullShard: failing }, MiB, (_, ok) => { told.push(ok) })
    pulls.start(job(1))
    pulls.start(job(2))
    await new Promise(resolve => { setImmediate(resolve) })
    await pulls.stop()
    pulls.start(job(3))
    await time.run()
    assert.deepEqual(told, [false])
    assert.equal(time.at, 0)
  })
})
