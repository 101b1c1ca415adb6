import assert from 'node:assert/strict'
import { seededRandom, silentLogger, systemClock, type Clock } from '../../../src/base/index.ts'
import { Ledger } from '../../../src/replication/ledger.ts'
import { ShardsByModel } from '../../../src/replication/model-shards.ts'
import { SwarmCache } from '../../../src/replication/swarm-cache.ts'
import { createMemoryStore, type ModelStore } from '../../../src/storage/index.ts'
import { contentOf, load, sampleOf, settings, type Sample } from '../../compliance/store-fixtures.ts'

/** A model of three files, and so of three shards, of 10,000 bytes. */
const threeShards = (seed: number): Sample => {
  const random = seededRandom(seed)
  return sampleOf(['a', 'b', 'c'].map(path => ({ path, content: contentOf(random, 10_000), sizes: [10_000] })))
}

class Fixture implements AsyncDisposable {
  time = 1_000
  readonly clock: Clock = { now: () => this.time, monotonic: () => systemClock.monotonic(), setTimeout: (fn, ms) => systemClock.setTimeout(fn, ms) }
  readonly store: ModelStore = createMemoryStore({ clock: this.clock, random: seededRandom(1), logger: silentLogger, settings })
  readonly ledger = new Ledger(undefined, silentLogger)
  readonly promised = new Set<string>()
  cache = this.#create()

  #create (): SwarmCache {
    const replicator = {
      spare: (model: string, shard: number): boolean => !this.promised.has(`${model}/${shard}`),
      promisedBytes: 0
    }
    Object.defineProperty(replicator, 'promisedBytes', { get: () => this.promised.size * 10_000 })
    return new SwarmCache({ store: this.store, shards: new ShardsByModel(), ledger: this.ledger, logger: silentLogger, replicator }, 40_000)
  }

  restart (): void { this.cache = this.#create() }

  /** All of a model is pulled, and promised. */
  async pulls (sample: Sample): Promise<void> {
    this.time += 10
    await load(this.store, sample)
    await this.store.touchModel(sample.cid)
    for (let shard = 0; shard < 3; shard++) {
      this.cache.ended(sample.cid, shard, 0)
      this.promised.add(`${sample.cid}/${shard}`)
    }
    this.store.keepModel(sample.cid, true)
    this.look()
  }

  look (): void { this.cache.look(() => false) }
  present (sample: Sample): boolean[] { return this.store.model(sample.cid)?.files.map(file => file.present.full) ?? [] }

  async [Symbol.asyncDispose] (): Promise<void> {
    await this.store.stop()
    this.ledger[Symbol.dispose]()
  }
}

async function fixture (): Promise<Fixture> {
  const made = new Fixture()
  await made.store.start()
  return made
}

describe('shards that came for the swarm and were let go', () => {
  it('count in what is given, and go, the oldest first, when a promise needs their room', async () => {
    await using at = await fixture()
    const [one, two] = [threeShards(1), threeShards(2)]
    await at.pulls(one)
    assert.equal(at.cache.releasedBytes(), 0)
    at.promised.delete(`${one.cid}/0`)
    at.promised.delete(`${one.cid}/2`)
    at.look()
    assert.equal(at.cache.releasedBytes(), 20_000)
    assert.equal(at.cache.spareBytes(cid => cid === one.cid), 20_000)
    await at.cache.fit()
    assert.deepEqual(at.present(one), [true, true, true], 'there is room')
    at.promised.add(`${two.cid}/0`).add(`${two.cid}/1`)
    await at.cache.fit()
    assert.deepEqual(at.present(one), [false, true, true], 'one of them is enough')
    at.promised.add(`${two.cid}/2`)
    await at.cache.fit()
    assert.deepEqual(at.present(one), [false, true, false])
    assert.equal(at.cache.releasedBytes(), 0)
  })

  it('are still known after a restart', async () => {
    await using at = await fixture()
    const one = threeShards(1)
    await at.pulls(one)
    at.promised.clear()
    at.restart()
    at.look()
    assert.equal(at.cache.releasedBytes(), 30_000)
  })

  it('make a pull fail rather than exceed what is given, when they are in use', async () => {
    await using at = await fixture()
    const one = threeShards(1)
    await at.pulls(one)
    at.promised.clear()
    at.look()
    for (const shard of [0, 1, 2]) at.promised.add(`another/${shard}`)
    const letGo = at.store.holdModel(one.cid)
    await assert.rejects(at.cache.fit(), { name: 'OutOfSpaceError' })
    letGo()
    await at.cache.fit()
    assert.equal(at.cache.releasedBytes(), 10_000)
  })

  it('are the user\'s from when he opens, pins or adds their model', async () => {
    for (const use of [
      async (at: Fixture, { cid }: Sample) => { at.time += 10; await at.store.touchModel(cid) },
      async (at: Fixture, { cid }: Sample) => { await at.store.setPinned(cid, true) },
      async (at: Fixture, { model }: Sample) => { await at.store.putModel(model, { published: true }) }
    ]) {
      await using at = await fixture()
      const one = threeShards(1)
      await at.pulls(one)
      at.promised.clear()
      await use(at, one)
      at.look()
      assert.equal(at.cache.releasedBytes(), 0)
      assert.equal(at.ledger.pulled().size, 0)
      assert.equal(await at.store.evictParts((at.store.model(one.cid)?.files ?? []).map(file => ({ file, first: 0, count: 1 })), 1), 0)
    }
  })

  it('count also when their pull failed half-way, and not when nothing came', async () => {
    await using at = await fixture()
    const one = threeShards(1)
    await load(at.store, one)
    at.cache.ended(one.cid, 0, 10_000)
    assert.equal(at.cache.releasedBytes(), 0)
    at.cache.ended(one.cid, 1, 4_000)
    assert.equal(at.cache.releasedBytes(), 10_000)
    at.cache.ended('nobody knows it', 0, 0)
  })
})
