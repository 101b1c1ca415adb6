import assert from 'node:assert/strict'
import { chmod, open, truncate } from 'node:fs/promises'
import { mock } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { MiB, seededRandom, silentLogger, systemClock, type Clock } from '../../../src/base/index.ts'
import { Ledger } from '../../../src/replication/ledger.ts'
import { ShardsByModel } from '../../../src/replication/model-shards.ts'
import { Scrubber } from '../../../src/replication/scrubber.ts'
import { HandlePool } from '../../../src/storage/handles.ts'
import { createMemoryStore, type ModelStore } from '../../../src/storage/index.ts'
import { contentOf, fileOf, fileStore, load, sampleOf, settings, smallModel, temporaryDirectory, type Sample } from '../../compliance/store-fixtures.ts'
import { until } from '../../support/until.ts'

async function storeWith (seeds: number[]): Promise<ModelStore> {
  const store = createMemoryStore({ clock: systemClock, random: seededRandom(1), logger: silentLogger, settings })
  await store.start()
  for (const seed of seeds) await load(store, smallModel(seed))
  return store
}

/** The store, telling which files are re-hashed. */
function watched (store: ModelStore, seen: string[]): ModelStore {
  return new Proxy(store, {
    get: (target, name) => {
      if (name !== 'verifyRange') {
        const value: unknown = Reflect.get(target, name, target)
        return typeof value === 'function' ? value.bind(target) as unknown : value
      }
      const verifyRange: ModelStore['verifyRange'] = async (file, ...rest) => { seen.push(file.key); return await target.verifyRange(file, ...rest) }
      return verifyRange
    }
  })
}

describe('the scrub', () => {
  it('goes over everything, again and again, and tells how far it is', async () => {
    const store = await storeWith([1, 2, 3])
    const seen: string[] = []
    using ledger = new Ledger(undefined, silentLogger)
    const scrubber = new Scrubber({ store: watched(store, seen), clock: systemClock, random: seededRandom(1), logger: silentLogger, ledger }, { periodMs: 200, suspectBlocks: 8 })
    assert.equal(scrubber.status().lastCompletedAt, undefined)
    scrubber.start()
    await until('three passes', () => seen.length >= 9, { withinMs: 10_000 })
    const order = seen.slice(0, 3)
    assert.equal(new Set(order).size, 3)
    assert.deepEqual(seen.slice(3, 6), order) // so that none waits longer than a period
    const { bytesTotal, bad, lastCompletedAt } = scrubber.status()
    assert.ok(bytesTotal > 0 && bad === 0 && lastCompletedAt !== undefined)
    await scrubber.stop()
    await store.stop()
  })

  it('reads what is doubted no faster than a pass may be, however often it is doubted', async () => {
    const random = seededRandom(5)
    const sample = sampleOf(Array.from({ length: 8 }, (_, i) => ({ path: `${i}.bin`, content: contentOf(random, MiB), sizes: [MiB] })))
    const store = createMemoryStore({ clock: systemClock, random: seededRandom(1), logger: silentLogger, settings })
    await store.start()
    await load(store, sample)
    using ledger = new Ledger(undefined, silentLogger)
    const seen: string[] = []
    const scrubber = new Scrubber({ store: watched(store, seen), clock: systemClock, random, logger: silentLogger, ledger }, { periodMs: 86_400_000, suspectBlocks: 8 })
    const model = store.model(sample.cid)
    assert.ok(model !== undefined)
    const shards = new ShardsByModel().of(model).all
    const startedAt = performance.now()
    while (performance.now() - startedAt < 500) {
      for (const shard of shards) scrubber.shard(sample.cid, shard)
      await wait(1)
    }
    assert.ok(seen.length >= 4, 'it looks at once')
    assert.ok(seen.length <= 1 + 64 * (performance.now() - startedAt) / 1_000, `${seen.length} MiB`)
    await scrubber.stop()
    await store.stop()
  })

  it('goes on after a restart with what was not looked at for longest', async () => {
    const store = await storeWith([1, 2, 3, 4])
    using ledger = new Ledger(undefined, silentLogger)
    const seen: string[] = []
    const scrubber = (): Scrubber => new Scrubber({ store: watched(store, seen), clock: systemClock, random: seededRandom(1), logger: silentLogger, ledger }, { periodMs: 400, suspectBlocks: 8 })
    const first = scrubber()
    first.start()
    await until('two files are noted', () => ledger.scrubbed().size === 2, { withinMs: 10_000 })
    await first.stop()
    const done = [...ledger.scrubbed().keys()]
    seen.length = 0
    ledger.setScrubbed('a file that went', 5)
    const second = scrubber()
    second.start()
    await until('all files are noted', () => ledger.scrubbed().size === 4, { withinMs: 10_000 })
    await second.stop()
    assert.ok(seen.slice(0, 2).every(key => !done.includes(key)))
    assert.ok(!ledger.scrubbed().has('a file that went'))
    await store.stop()
  })

  it('stops in the middle, and leaves no timer', async () => {
    const store = await storeWith([1])
    using ledger = new Ledger(undefined, silentLogger)
    let timers = 0
    const counting: Clock = {
      ...systemClock,
      setTimeout: (fn, delayMs) => {
        timers++
        let isSet = true
        const end = (): void => {
          if (isSet) timers--
          isSet = false
        }
        const cancel = systemClock.setTimeout(() => { end(); fn() }, delayMs)
        return () => { end(); cancel() }
      }
    }
    const scrubber = new Scrubber({ store, clock: counting, random: seededRandom(1), logger: silentLogger, ledger }, { periodMs: 3_600_000, suspectBlocks: 8 })
    scrubber.start()
    await until('it waits for its next step', () => timers === 1)
    assert.equal(scrubber.status().bytesDone, 0)
    await scrubber.stop()
    assert.equal(timers, 0)
    await store.stop()
  })

  describe('of a volume that goes bad', () => {
    const scrub = { periodMs: 100, suspectBlocks: 3 }
    const running: Scrubber[] = []
    afterEach(async () => {
      mock.restoreAll()
      for (const scrubber of running.splice(0)) await scrubber.stop()
    })
    interface Disk extends AsyncDisposable { store: ModelStore, sample: Sample, path: string, breaks: (...blocks: number[]) => Promise<void>, mend: () => Promise<void> }
    /** A store on disk with one file of 20 blocks. */
    const disk = async (): Promise<Disk> => {
      const directory = await temporaryDirectory()
      const store = fileStore(directory.path)
      await store.start()
      const sample = smallModel(1, 20)
      await load(store, sample)
      const file = fileOf(store, sample)
      return {
        store,
        sample,
        path: file.path ?? '',
        breaks: async (...blocks) => {
          await chmod(file.path ?? '', 0o600)
          await using handle = await open(file.path ?? '', 'r+')
          for (const block of blocks) await handle.write(Buffer.from([1, 2, 3, 4]), 0, 4, file.offsets[block] ?? 0)
        },
        mend: async () => { await load(store, sample) },
        [Symbol.asyncDispose]: async () => {
          await store.stop()
          await directory[Symbol.asyncDispose]()
        }
      }
    }
    const start = (store: ModelStore, ledger: Ledger): Scrubber => {
      const scrubber = new Scrubber({ store, clock: systemClock, random: seededRandom(1), logger: silentLogger, ledger }, scrub)
      scrubber.start()
      running.push(scrubber)
      return scrubber
    }
    /** Two passes from now. */
    const passes = async (scrubber: Scrubber): Promise<void> => {
      for (let i = 0; i < 2; i++) {
        const before = scrubber.status().lastCompletedAt
        await until('a pass ends', () => scrubber.status().lastCompletedAt !== before, { withinMs: 10_000 })
      }
    }

    it('suspects it for several bad places in one pass, not for fewer nor for one file that was cut off', async () => {
      await using at = await disk()
      using ledger = new Ledger(undefined, silentLogger)
      const scrubber = start(at.store, ledger)
      const found = async (bad: number): Promise<void> => {
        await until('the bad blocks are found', () => scrubber.status().bad === bad, { withinMs: 10_000 })
        await passes(scrubber)
        await at.mend()
      }
      await at.breaks(1, 5)
      await found(2)
      assert.ok(!scrubber.suspect, 'two places')
      await truncate(at.path, 30_000)
      await until('more than ten are bad', () => scrubber.status().bad > 10, { withinMs: 10_000 })
      await passes(scrubber)
      assert.ok(!scrubber.suspect, 'a file that was cut off')
      await at.mend()
      await at.breaks(1, 5, 7)
      await until('the volume is suspect', () => scrubber.suspect, { withinMs: 10_000 })
      await scrubber.stop()
    })

    it('does not suspect it for what could not be looked at, and does not call that a pass over everything', async () => {
      await using at = await disk()
      using ledger = new Ledger(undefined, silentLogger)
      const failed = mock.method(HandlePool.prototype, 'acquire', async () => await Promise.reject(Object.assign(new Error('too many open files'), { code: 'EMFILE', syscall: 'open' })))
      const scrubber = start(at.store, ledger)
      await until('all of it was to be read, twice', () => failed.mock.callCount() >= 40, { withinMs: 10_000 })
      failed.mock.restore()
      assert.deepEqual([scrubber.suspect, scrubber.status().bad, scrubber.status().lastCompletedAt], [false, 0, undefined])
      await passes(scrubber)
      assert.equal(at.store.model(at.sample.cid)?.complete, true)
    })

    it('goes on to suspect it after a restart, until the first whole pass of a life found nothing bad', async () => {
      await using at = await disk()
      using ledger = new Ledger(undefined, silentLogger)
      const first = start(at.store, ledger)
      await at.breaks(1, 5, 9)
      await until('the volume is suspect', () => first.suspect, { withinMs: 10_000 })
      await passes(first)
      await at.mend()
      await passes(first)
      assert.ok(first.suspect, 'a clean pass of the same life does not clear it')
      const since = first.status().suspectSince
      await first.stop()

      await at.breaks(4)
      const second = start(at.store, ledger)
      assert.equal(second.status().suspectSince, since)
      await passes(second)
      await at.mend()
      await passes(second)
      assert.ok(second.suspect, 'the first pass was not clean')
      await second.stop()

      const third = start(at.store, ledger)
      assert.ok(third.suspect)
      await until('the volume is trusted again', () => !third.suspect, { withinMs: 10_000 })
      await third.stop()
      const fourth = start(at.store, ledger)
      assert.ok(!fourth.suspect)
      await fourth.stop()
    })

    it('looks at all of it at once after a restart, however long the period is', async () => {
      await using at = await disk()
      using ledger = new Ledger(undefined, silentLogger)
      ledger.setState('volumeSuspectAt', 1_000)
      const scrubber = new Scrubber({ store: at.store, clock: systemClock, random: seededRandom(1), logger: silentLogger, ledger }, { periodMs: 7 * 86_400_000, suspectBlocks: 3 })
      scrubber.start()
      await until('the volume is trusted again', () => !scrubber.suspect, { withinMs: 10_000 })
      await scrubber.stop()
    })
  })
})
