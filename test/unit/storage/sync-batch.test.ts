import assert from 'node:assert/strict'
import type { Clock } from '../../../src/base/index.ts'
import { SyncBatch } from '../../../src/storage/sync-batch.ts'

class ManualClock implements Clock {
  #timers = new Set<{ fn: () => void, delayMs: number }>()
  now (): number { return 0 }
  monotonic (): number { return 0 }
  setTimeout (fn: () => void, delayMs: number): () => void {
    const timer = { fn, delayMs }
    this.#timers.add(timer)
    return () => { this.#timers.delete(timer) }
  }

  get pending (): number { return this.#timers.size }
  fire (): void {
    const due = [...this.#timers]
    this.#timers.clear()
    for (const { fn } of due) fn()
  }
}

describe('SyncBatch', () => {
  const runs: number[][] = []
  let finish: Array<(error?: Error) => void> = []
  let clock: ManualClock
  let batch: SyncBatch<number>

  beforeEach(() => {
    runs.length = 0
    finish = []
    clock = new ManualClock()
    batch = new SyncBatch({
      clock,
      bytesMax: 100,
      intervalMs: 250,
      keysMax: 3,
      keyOf: item => item % 10,
      run: async items => {
        runs.push(items)
        await new Promise<void>((resolve, reject) => { finish.push(error => { if (error === undefined) resolve(); else reject(error) }) })
      }
    })
  })
  const settle = async (): Promise<void> => { await new Promise(resolve => { setImmediate(resolve) }) }
  const end = async (error?: Error): Promise<void> => { finish.shift()?.(error); await settle() }

  it('runs when enough bytes came, and not before', async () => {
    batch.add(1, 99)
    assert.deepEqual(runs, [])
    batch.add(1, 1)
    assert.deepEqual(runs, [[1, 1]])
    assert.equal(clock.pending, 0)
    await end()
  })

  it('runs when the time has come since the first addition', async () => {
    batch.add(1, 1)
    batch.add(2, 1)
    assert.equal(clock.pending, 1)
    clock.fire()
    assert.deepEqual(runs, [[1, 2]])
    await end()
    assert.equal(clock.pending, 0)
  })

  it('runs when too many keys differ', async () => {
    for (const item of [1, 11, 2, 3]) batch.add(item, 1)
    assert.deepEqual(runs, [[1, 11, 2, 3]])
    await end()
  })

  it('runs one at a time, and what was due meanwhile right after', async () => {
    batch.add(1, 100)
    batch.add(2, 1)
    clock.fire()
    batch.add(3, 1)
    assert.deepEqual(runs, [[1]])
    await end()
    assert.deepEqual(runs, [[1], [2, 3]])
    await end()
    assert.equal(clock.pending, 0)
  })

  it('flush waits for all that was added, also by a run in progress', async () => {
    batch.add(1, 100)
    batch.add(2, 1)
    let flushed = false
    const done = batch.flush().then(() => { flushed = true })
    await end()
    assert.deepEqual(runs, [[1], [2]])
    assert.equal(flushed, false)
    await end()
    await done
    await batch.flush()
    assert.equal(runs.length, 2)
  })

  it('tells a failure to those who flush, and goes on', async () => {
    batch.add(1, 1)
    const done = assert.rejects(batch.flush(), /disk/)
    await end(new Error('disk'))
    await done
    batch.add(2, 1)
    const again = batch.flush()
    await end()
    await again
    assert.deepEqual(runs, [[1], [2]])
  })

  it('holds back who adds faster than it runs', async () => {
    batch.add(1, 300)
    batch.add(2, 100)
    let room = false
    const waiting = batch.room().then(() => { room = true })
    await settle()
    assert.equal(room, false)
    await end()
    await waiting
    await end()
  })
})
