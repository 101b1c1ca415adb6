import assert from 'node:assert/strict'
import { blake3 } from '@napi-rs/blake-hash'
import { KiB, MiB, seededRandom, silentLogger, systemClock, systemRandom } from '../../../src/base/index.ts'
import { createBlockHasher } from '../../../src/model/index.ts'
import { challengeSeed } from '../../../src/replication/challenge.ts'
import { Prover, challengedRanges } from '../../../src/replication/digest.ts'
import { ShardsByModel } from '../../../src/replication/model-shards.ts'
import { createMemoryStore, type ModelStore } from '../../../src/storage/index.ts'
import { contentOf, fileOf, load, sampleOf, settings, writeBlock, type Sample } from '../../compliance/store-fixtures.ts'

async function holding (sample: Sample): Promise<ModelStore> {
  const store = createMemoryStore({ clock: systemClock, random: systemRandom, logger: silentLogger, settings })
  await store.start()
  await load(store, sample)
  return store
}

async function prove (store: ModelStore, model: string, shards: number[], nonce: Uint8Array): Promise<Uint8Array[]> {
  const prover = new Prover({ store, shards: new ShardsByModel(), logger: silentLogger })
  return await new Promise(resolve => { prover.prove({ model, shards, seed: nonce, done: resolve }, 'asker') })
}

describe('proofs', () => {
  const random = seededRandom(3)
  const content = contentOf(random, MiB)
  const sample = sampleOf([
    { path: 'a.bin', content, sizes: [300_000, MiB - 300_000] },
    { path: 'b.bin', content: contentOf(random, 9_000), sizes: [4_000, 5_000] },
    { path: 'c.bin', content, sizes: [300_000, MiB - 300_000] }
  ])
  const nonce = random.bytes(32)

  it('are the hash of nonce, number and the ranges that the nonce selects', async () => {
    const store = await holding(sample)
    const digests = await prove(store, sample.cid, [1, 0], nonce)
    const small = sample.files[1]?.content ?? Buffer.alloc(0)
    assert.deepEqual(Buffer.from(digests[0] ?? []), blake3(Buffer.concat([nonce, Buffer.from([1, 0, 0, 0]), small])))
    const ranges = challengedRanges(createBlockHasher(), nonce, 0, MiB)
    assert.equal(ranges.length, 4)
    for (const { offset, length } of ranges) assert.ok(length === 16 * KiB && offset >= 0 && offset + length <= MiB)
    const pieces = ranges.map(({ offset, length }) => content.subarray(offset, offset + length))
    assert.deepEqual(Buffer.from(digests[1] ?? []), blake3(Buffer.concat([nonce, Buffer.alloc(4), ...pieces])))
    await store.stop()
  })

  it('differ with the nonce and the shard', async () => {
    const store = await holding(sample)
    const [one] = await prove(store, sample.cid, [0], nonce)
    const [other] = await prove(store, sample.cid, [0], random.bytes(32))
    assert.notDeepEqual(one, other)
    assert.notDeepEqual(challengedRanges(createBlockHasher(), nonce, 0, MiB), challengedRanges(createBlockHasher(), nonce, 1, MiB))
    await store.stop()
  })

  it('are empty for what is not here in full', async () => {
    const store = createMemoryStore({ clock: systemClock, random: systemRandom, logger: silentLogger, settings })
    await store.start()
    await store.putModel(sample.model)
    await writeBlock(store, fileOf(store, sample), content, 0)
    await store.flush()
    assert.deepEqual((await prove(store, sample.cid, [0, 1, 2, 99], nonce)).map(({ length }) => length), [0, 0, 0, 0])
    assert.deepEqual((await prove(store, 'unknown', [0], nonce)).map(({ length }) => length), [0])
    await store.stop()
  })

  it('are for one asker and one prover', () => {
    const [a, b] = ['12D3KooWa', '12D3KooWb']
    const seeds = [challengeSeed(nonce, a, b), challengeSeed(nonce, b, a), challengeSeed(nonce, a, a), challengeSeed(random.bytes(32), a, b), nonce]
    assert.equal(new Set(seeds.map(seed => Buffer.from(seed).toString('hex'))).size, seeds.length)
    assert.equal(Buffer.from(challengeSeed(Uint8Array.of(7), a, b)).toString('latin1'), 'shoal-proof-2\0' + a + '\0' + b + '\0\x07')
  })

  it('of one who floods hold up neither those of others nor what this node checks itself', async () => {
    const store = await holding(sample)
    const prover = new Prover({ store, shards: new ShardsByModel(), logger: silentLogger })
    const order: string[] = []
    const ask = (asker: string | undefined, shards: number[]): Promise<void> => new Promise(resolve => {
      prover.prove({ model: sample.cid, shards, seed: random.bytes(32), done: () => { order.push(asker ?? 'own'); resolve() } }, asker)
    })
    for (let i = 0; i < 2_000; i++) void ask('flood', Array.from({ length: 256 }, () => 0))
    await Promise.all([ask('honest', [0]), ask(undefined, [0]), ask('honest', [1])])
    assert.ok(order.filter(asker => asker === 'flood').length === 0, order.join())
    await prover.stop()
    await store.stop()
  })

  it('are answered by who is in time, as many as one may ask', async () => {
    const store = await holding(sample)
    const prover = new Prover({ store, shards: new ShardsByModel(), logger: silentLogger })
    let answered = 0
    for (let i = 0; i < 100; i++) prover.prove({ model: sample.cid, shards: [1], seed: nonce, done: () => { answered++ } }, 'peer')
    await new Promise<void>(resolve => { prover.prove({ model: sample.cid, shards: Array.from({ length: 64 }, () => 1), seed: nonce, done: () => { resolve() } }, 'last') })
    assert.equal(answered, 32)
    await prover.stop()
    await store.stop()
  })

  it('count equal files once', async () => {
    const store = await holding(sample)
    const model = store.model(sample.cid)
    assert.ok(model !== undefined)
    const shards = new ShardsByModel().of(model)
    assert.deepEqual(shards.bytes, [MiB, 9_000])
    assert.deepEqual(shards.held(), [0, 1])
    assert.deepEqual(shards.all.map(({ position, first, count, offset }) => [position, first, count, offset]), [[0, 0, 2, 0], [1, 0, 2, 0]])
    await store.stop()
  })
})
