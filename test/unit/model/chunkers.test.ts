import assert from 'node:assert/strict'
import type { CID } from 'multiformats/cid'
import fc from 'fast-check'
import { BLOCK_BYTES_MAX, FILE_INDEX_BYTES_MAX, GiB, MiB, SHARD_BYTES_MAX } from '../../../src/base/index.ts'
import { chooseChunker, chunkers, encodeFileIndex, hashBlock, planBlocks, shardsOf, type FileIndex, type ReadAt } from '../../../src/model/index.ts'

/** A safetensors file of U8 tensors that is never made: only its header can be read. */
interface Planned { header: Uint8Array, size: number, readAt: ReadAt }

function plan (lengths: number[], padding = 0): Planned {
  let at = 0
  const entries = lengths.map((length, i) => [`t${i}`, { dtype: 'U8', shape: [length], data_offsets: [at, at += length] }])
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)) + ' '.repeat(padding))
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(BigInt(json.length))
  const header = Buffer.concat([prefix, json])
  return { header, size: header.length + at, readAt: async (offset, length) => header.subarray(offset, offset + length) }
}

const cut = async (lengths: number[]): Promise<number[]> => {
  const { size, readAt, header } = plan(lengths)
  const { chunker, sizes } = await planBlocks('m.safetensors', size, readAt)
  assert.equal(chunker, 'safetensors')
  assert.equal(sizes.reduce((sum, bytes) => sum + bytes, 0), size)
  assert.equal(sizes[0], header.length)
  return sizes.slice(1)
}

describe('model: chunkers', () => {
  it('are chosen by name', () => {
    assert.equal(chooseChunker('a/b/model.safetensors'), 'safetensors')
    assert.equal(chooseChunker('MODEL.SAFETENSORS'), 'safetensors')
    for (const path of ['safetensors', 'model.safetensors.index.json', 'x.gguf', 'a.safetensors/b']) assert.equal(chooseChunker(path), 'fixed')
    assert.deepEqual(Object.keys(chunkers).sort(), ['fixed', 'safetensors'])
  })

  it('fixed: 4 MiB and a rest, nothing for nothing', async () => {
    const never: ReadAt = async () => { throw new Error('need not read') }
    assert.deepEqual(await planBlocks('empty', 0, never), { chunker: 'fixed', sizes: [] })
    assert.deepEqual((await planBlocks('x', 1, never)).sizes, [1])
    assert.deepEqual((await planBlocks('x', 4 * MiB, never)).sizes, [4 * MiB])
    assert.deepEqual((await planBlocks('x', 9 * MiB + 1, never)).sizes, [4 * MiB, 4 * MiB, MiB + 1])
    await assert.rejects(planBlocks('x', 400_001 * 4 * MiB, never), { name: 'LimitExceededError' })
  })

  it('refuse before anything is read what no file index could hold, and nothing less', async () => {
    const never: ReadAt = async () => { throw new Error('need not read') }
    let fits = 300_000
    let fails = 400_000
    while (fails - fits > 1) {
      const count = (fits + fails) >> 1
      const planned = await planBlocks('x', count * 4 * MiB, never).then(() => true, () => false)
      if (planned) fits = count
      else fails = count
    }
    const { chunker, sizes } = await planBlocks('x', fits * 4 * MiB, never)
    const blocks = Array<CID>(fits).fill(hashBlock(new Uint8Array(1)))
    const { bytes } = encodeFileIndex({ version: 1, size: fits * 4 * MiB, sha256: new Uint8Array(32), chunker, blocks, sizes })
    assert.ok(bytes.length > FILE_INDEX_BYTES_MAX - 1000)
  })

  it('safetensors: large tensors start their own block, small neighbours share, none of them is cut', async () => {
    assert.deepEqual(await cut([10 * MiB]), [4 * MiB, 4 * MiB, 2 * MiB])
    assert.deepEqual(await cut([100, 200, MiB, 300]), [300, MiB, 300])
    assert.deepEqual(await cut([MiB - 1, MiB]), [MiB - 1, MiB])
    assert.deepEqual(await cut([5 * MiB, 100, 5 * MiB]), [4 * MiB, MiB, 100, 4 * MiB, MiB])
    assert.deepEqual(await cut(Array<number>(9).fill(MiB - 1)), [4 * (MiB - 1), 4 * (MiB - 1), MiB - 1])
    assert.deepEqual(await cut([MiB / 2, ...Array<number>(7).fill(MiB / 2), 1]), [4 * MiB, 1])
    assert.deepEqual(await cut([0, 10, 0, MiB, 0]), [10, MiB])
    assert.deepEqual(await cut([]), [])
    assert.deepEqual(await cut([5 * GiB + 1]), [...Array<number>(1280).fill(4 * MiB), 1])
  })

  it('safetensors: a header beyond 4 MiB is cut too', async () => {
    const { size, readAt, header } = plan([100], 5 * MiB)
    assert.deepEqual((await planBlocks('m.safetensors', size, readAt)).sizes, [4 * MiB, header.length - 4 * MiB, 100])
  })

  it('a file whose header lies is cut like any other, and named so', async () => {
    const { size, readAt } = plan([10 * MiB])
    assert.deepEqual(await planBlocks('m.safetensors', size + 1, readAt), { chunker: 'fixed', sizes: (await planBlocks('m', size + 1, readAt)).sizes })
    assert.deepEqual(await planBlocks('m.safetensors', 3, async () => new Uint8Array(3)), { chunker: 'fixed', sizes: [3] })
    assert.deepEqual(await planBlocks('m.safetensors', 0, async () => new Uint8Array(0)), { chunker: 'fixed', sizes: [] })
    await assert.rejects(planBlocks('m.safetensors', 100, async () => { throw new TypeError('disk') }), { name: 'TypeError' })
  })

  const lengths = fc.array(fc.oneof(fc.nat(5000), fc.nat(12 * MiB), fc.constantFrom(0, 1, MiB - 1, MiB, MiB + 1, 4 * MiB, 4 * MiB + 1)), { maxLength: 30 })

  it('sizes add up, stay in bounds, and begin where large tensors do', async () => {
    await fc.assert(fc.asyncProperty(lengths, async tensors => {
      const sizes = await cut(tensors)
      assert.ok(sizes.every(size => size >= 1 && size <= BLOCK_BYTES_MAX))
      const starts = new Set<number>([0])
      let at = 0
      for (const size of sizes) starts.add(at += size)
      at = 0
      for (const length of tensors) {
        if (length >= MiB) assert.ok(starts.has(at) && starts.has(at + length))
        at += length
      }
    }))
  })

  it('a tensor put in anywhere leaves all blocks of the large ones as they were', async () => {
    await fc.assert(fc.asyncProperty(lengths, fc.nat(), fc.nat(9 * MiB), async (tensors, where, added) => {
      const at = where % (tensors.length + 1)
      const identities = tensors.map((length, i) => ({ length, id: `t${i}` }))
      const base = await blocksOf(identities)
      const tuned = new Set(await blocksOf(identities.toSpliced(at, 0, { length: added, id: 'new' })))
      for (const block of base) {
        if (block.startsWith('large ')) assert.ok(tuned.has(block), block)
      }
      // Of the shared blocks of small tensors only those between the two large ones around the insertion may change.
      const around = { from: identities.slice(0, at).findLastIndex(({ length }) => length >= MiB), to: identities.findIndex(({ length }, i) => i >= at && length >= MiB) }
      const inRun = new Set(identities.slice(around.from + 1, around.to < 0 ? undefined : around.to).map(({ id }) => id))
      for (const block of base) {
        if (block.startsWith('small ') && !block.slice(6).split(',').some(id => inRun.has(id))) assert.ok(tuned.has(block), block)
      }
    }))
  })
})

/** What each block after the header holds, in words: the same words are the same bytes. */
async function blocksOf (tensors: Array<{ length: number, id: string }>): Promise<string[]> {
  const sizes = await cut(tensors.map(({ length }) => length))
  const left = tensors.filter(({ length }) => length > 0).map(({ length, id }) => ({ length, id, done: 0 }))
  return sizes.map(size => {
    const first = left[0]
    if (first !== undefined && first.length >= MiB) {
      const name = `large ${first.id} ${first.done} ${size}`
      first.done += size
      if (first.done === first.length) left.shift()
      assert.ok(first.done <= first.length)
      return name
    }
    const ids: string[] = []
    for (let room = size; room > 0;) {
      const next = left.shift()
      assert.ok(next !== undefined && next.length <= room)
      room -= next.length
      ids.push(next.id)
    }
    return `small ${ids.join(',')}`
  })
}

describe('model: shards', () => {
  const indexOf = (sizes: number[], name: (i: number) => string = i => `${i}`): FileIndex => encodeFileIndex({
    version: 1, size: sizes.reduce((sum, size) => sum + size, 0), sha256: new Uint8Array(32), chunker: 'fixed', blocks: sizes.map((_, i) => hashBlock(Buffer.from(name(i)))), sizes
  }).value

  it('are greedy runs that cover the file', () => {
    assert.deepEqual(shardsOf(indexOf([])), [])
    const two = shardsOf(indexOf(Array<number>(65).fill(4 * MiB)))
    assert.deepEqual(two.map(({ first, count, bytes }) => [first, count, bytes]), [[0, 64, SHARD_BYTES_MAX], [64, 1, 4 * MiB]])
    fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: BLOCK_BYTES_MAX }), { maxLength: 400 }), sizes => {
      const shards = shardsOf(indexOf(sizes))
      let next = 0
      for (const [i, { first, count, bytes }] of shards.entries()) {
        assert.equal(first, next)
        assert.equal(bytes, sizes.slice(first, first + count).reduce((sum, size) => sum + size, 0))
        assert.ok(bytes <= SHARD_BYTES_MAX && count > 0)
        next = first + count
        if (i < shards.length - 1) assert.ok(bytes + (sizes[next] ?? 0) > SHARD_BYTES_MAX)
      }
      assert.equal(next, sizes.length)
    }), { numRuns: 50 })
  })

  it('are named by what they hold', () => {
    const one = shardsOf(indexOf(Array<number>(130).fill(4 * MiB)))
    const changed = shardsOf(indexOf(Array<number>(130).fill(4 * MiB), i => (i === 70 ? 'other' : `${i}`)))
    assert.deepEqual(one.map((shard, i) => shard.cid.equals(changed[i]?.cid)), [true, false, true])
    assert.equal(new Set(one.map(shard => shard.cid.toString())).size, 3)
    const single = indexOf([5])
    assert.notEqual(shardsOf(single)[0]?.cid.toString(), single.blocks.at(0)?.toString())
    assert.equal(shardsOf(single)[0]?.cid.code, 0x55)
  })
})
