import assert from 'node:assert/strict'
import { setTimeout as wait } from 'node:timers/promises'
import { seededRandom, silentLogger, systemClock } from '../../../src/base/index.ts'
import { Ledger } from '../../../src/replication/ledger.ts'
import { Scrubber } from '../../../src/replication/scrubber.ts'
import { createMemoryStore, type ModelStore } from '../../../src/storage/index.ts'
import { load, settings, smallModel } from '../../compliance/store-fixtures.ts'

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

async function until (is: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000
  while (!is()) {
    assert.ok(Date.now() < deadline, 'it did not happen in time')
    await wait(5)
  }
}

describe('the scrub', () => {
  it('goes over everything, again and again, and tells how far it is', async () => {
    const store = await storeWith([1, 2, 3])
    const seen: string[] = []
    using ledger = new Ledger(undefined, silentLogger)
    const scrubber = new Scrubber({ store: watched(store, seen), clock: systemClock, random: seededRandom(1), logger: silentLogger, ledger }, 200)
    assert.equal(scrubber.status().lastCompletedAt, undefined)
    scrubber.start()
    await until(() => seen.length >= 9)
    const order = seen.slice(0, 3)
    assert.equal(new Set(order).size, 3)
    assert.deepEqual(seen.slice(3, 6), order) // so that none waits longer than a period
    const { bytesTotal, bad, lastCompletedAt } = scrubber.status()
    assert.ok(bytesTotal > 0 && bad === 0 && lastCompletedAt !== undefined)
    await scrubber.stop()
    await store.stop()
  })

  it('goes on after a restart with what was not looked at for longest', async () => {
    const store = await storeWith([1, 2, 3, 4])
    using ledger = new Ledger(undefined, silentLogger)
    const seen: string[] = []
    const scrubber = (): Scrubber => new Scrubber({ store: watched(store, seen), clock: systemClock, random: seededRandom(1), logger: silentLogger, ledger }, 400)
    const first = scrubber()
    first.start()
    await until(() => ledger.scrubbed().size === 2)
    await first.stop()
    const done = [...ledger.scrubbed().keys()]
    seen.length = 0
    ledger.setScrubbed('a file that went', 5)
    const second = scrubber()
    second.start()
    await until(() => ledger.scrubbed().size === 4)
    await second.stop()
    assert.ok(seen.slice(0, 2).every(key => !done.includes(key)))
    assert.ok(!ledger.scrubbed().has('a file that went'))
    await store.stop()
  })

  it('stops in the middle, and leaves no timer', async () => {
    const store = await storeWith([1])
    using ledger = new Ledger(undefined, silentLogger)
    const scrubber = new Scrubber({ store, clock: systemClock, random: seededRandom(1), logger: silentLogger, ledger }, 3_600_000)
    scrubber.start()
    await wait(20)
    await scrubber.stop()
    await store.stop()
  })
})
