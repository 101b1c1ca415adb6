import assert from 'node:assert/strict'
import { decode, encode } from '@ipld/dag-cbor'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import fc from 'fast-check'
import { BLOCK_BYTES_MAX, FILE_BLOCKS_MAX, FILE_INDEX_BYTES_MAX, GIT_SHA1_SIZE_MAX, MANIFEST_BYTES_MAX, MANIFEST_FILES_MAX, seededRandom } from '../../../src/base/index.ts'
import {
  blockCid, checkModel, decodeFileIndex, decodeManifest, encodeFileIndex, encodeManifest, hashBlock, hashMetadata, shardsOf, CidList, type FileIndex, type FileIndexFields, type Manifest
} from '../../../src/model/index.ts'
import { countTurns } from '../../support/turns.ts'

const block = (name: string): CID => hashBlock(Buffer.from(name))
const link = (name: string): CID => hashMetadata(Buffer.from(name))
const foreign = (codec: number, hash: number, length: number): CID => CID.createV1(codec, Digest.create(hash, new Uint8Array(length)))

const INDEX = { version: 1 as const, size: 30, sha256: new Uint8Array(32).fill(7), chunker: 'fixed', blocks: [block('a'), block('b')], sizes: [10, 20] }
const MANIFEST: Manifest = { version: 1, files: [{ path: 'config.json', size: 3, index: link('c') }, { path: 'model.safetensors', size: 2 ** 40, index: link('m') }] }

const SMALL = { ...INDEX, gitSha1: new Uint8Array(20).fill(9) }

const readIndex = (bytes: Uint8Array): FileIndex => decodeFileIndex(hashMetadata(bytes), bytes).value
const readManifest = (bytes: Uint8Array): Manifest => decodeManifest(hashMetadata(bytes), bytes).value

describe('model: stored formats', () => {
  it('have not changed', () => {
    const index = encodeFileIndex(INDEX)
    assert.equal(Buffer.from(index.bytes).toString('hex'), 'a66473697a65181e6573697a6573820a1466626c6f636b7382d82a58250001551e2017762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215fd82a58250001551e2010e5cf3d3c8a4f9f3468c8cc58eea84892a22fdadbc1acb22410190044c1d5536673686132353658200707070707070707070707070707070707070707070707070707070707070707676368756e6b65726566697865646776657273696f6e01')
    assert.equal(index.cid.toString(), 'bafyr4iha7zrqkntnm4edtgzzpjuoyl4necq2pev64auy2n4ovrbq57naby')
    const small = encodeFileIndex(SMALL)
    assert.equal(Buffer.from(small.bytes).toString('hex'), 'a76473697a65181e6573697a6573820a1466626c6f636b7382d82a58250001551e2017762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215fd82a58250001551e2010e5cf3d3c8a4f9f3468c8cc58eea84892a22fdadbc1acb22410190044c1d5536673686132353658200707070707070707070707070707070707070707070707070707070707070707676368756e6b657265666978656467676974536861315409090909090909090909090909090909090909096776657273696f6e01')
    assert.equal(small.cid.toString(), 'bafyr4ifghxx2syzch27colbqpz24xm7z56t634xc5skkr7k373aah333be')
    const manifest = encodeManifest(MANIFEST)
    assert.equal(Buffer.from(manifest.bytes).toString('hex'), 'a26566696c657382a364706174686b636f6e6669672e6a736f6e6473697a650365696e646578d82a58250001711e20ea7aa1fc9efdbe106dbb70369a75e9671fa29d52bd55536711bf197477b8f021a36470617468716d6f64656c2e7361666574656e736f72736473697a651b000001000000000065696e646578d82a58250001711e2083d9dab06011479163c7c4d5fa735f911bac86729f56aaa115b7eed2eb66e0226776657273696f6e01')
    assert.equal(manifest.cid.toString(), 'bafyr4ih62o7vcsumc6sn254zq3ci6ts7gknllpgpq74wcxi6asklxbv4qe')
    assert.equal(shardsOf(index.value)[0]?.cid.toString(), 'bafkr4igzewz7n5sce3x5bvnvfclpgtwhvdp3uxfk5ore3iqyzxboweovnm')
  })
})

describe('model: file index', () => {
  const cids = fc.uint8Array({ minLength: 1, maxLength: 8 }).map(hashBlock)
  const indexes = fc.array(fc.tuple(cids, fc.integer({ min: 1, max: BLOCK_BYTES_MAX })), { maxLength: 40 }).map((pairs): FileIndexFields => ({
    version: 1,
    size: pairs.reduce((sum, [, size]) => sum + size, 0),
    sha256: new Uint8Array(32).fill(pairs.length),
    chunker: 'fixed',
    blocks: pairs.map(([cid]) => cid),
    sizes: pairs.map(([, size]) => size)
  }))

  it('comes back as it went, under the CID of its bytes', () => {
    fc.assert(fc.property(indexes, index => {
      const { cid, bytes, value } = encodeFileIndex(index)
      assert.ok(hashMetadata(bytes).equals(cid))
      const wire = Uint8Array.from(bytes)
      const decoded = decodeFileIndex(cid, wire)
      wire.fill(0)
      assert.deepEqual(decoded.value, value)
      assert.deepEqual(value.sizes, index.sizes)
      assert.deepEqual(decoded.bytes, bytes)
      assert.deepEqual(encodeFileIndex(decoded.value).bytes, bytes)
    }))
  })

  it('of a small file holds its git SHA-1, and without it stays what it was', () => {
    assert.deepEqual(readIndex(encodeFileIndex(SMALL).bytes), { ...SMALL, blocks: CidList.from(SMALL.blocks) })
    assert.equal('gitSha1' in readIndex(encodeFileIndex(INDEX).bytes), false)
    assert.deepEqual(encodeFileIndex({ ...SMALL, gitSha1: undefined }).bytes, encodeFileIndex(INDEX).bytes)
    const most = { ...SMALL, size: GIT_SHA1_SIZE_MAX, blocks: [block('a')], sizes: [GIT_SHA1_SIZE_MAX] }
    assert.deepEqual(readIndex(encodeFileIndex(most).bytes), { ...most, blocks: CidList.from(most.blocks) })
  })

  const wrong: Array<[string, object]> = [
    ['another version', { ...INDEX, version: 2 }],
    ['a short git SHA-1', { ...SMALL, gitSha1: new Uint8Array(19) }],
    ['a long git SHA-1', { ...SMALL, gitSha1: new Uint8Array(21) }],
    ['a git SHA-1 as text', { ...SMALL, gitSha1: 'x'.repeat(20) }],
    ['a git SHA-1 of nothing', { ...SMALL, gitSha1: null }],
    ['a git SHA-1 under another name', { ...INDEX, gitSHA1: new Uint8Array(20) }],
    ['a git SHA-1 and something else', { ...SMALL, extra: 1 }],
    ['a git SHA-1 of a large file', { ...SMALL, size: GIT_SHA1_SIZE_MAX + 1, blocks: [block('a')], sizes: [GIT_SHA1_SIZE_MAX + 1] }],
    ['a missing key', { version: 1, size: 30, chunker: 'fixed', blocks: INDEX.blocks, sizes: INDEX.sizes }],
    ['an extra key', { ...INDEX, extra: 1 }],
    ['a key renamed', { ...INDEX, chunker: undefined, Chunker: 'fixed' }],
    ['sizes that do not add up', { ...INDEX, size: 31 }],
    ['a block of nothing', { ...INDEX, size: 20, sizes: [0, 20] }],
    ['a block too large', { ...INDEX, size: BLOCK_BYTES_MAX + 11, sizes: [10, BLOCK_BYTES_MAX + 1] }],
    ['a negative size', { ...INDEX, size: 10, sizes: [20, -10] }],
    ['a fraction', { ...INDEX, sizes: [9.5, 20.5] }],
    ['a size beyond 2^53', { ...INDEX, size: 2n ** 60n }],
    ['a size that rounds to a good one', { ...INDEX, size: 2n ** 53n }],
    ['fewer sizes than blocks', { ...INDEX, sizes: [30] }],
    ['fewer blocks than sizes', { ...INDEX, blocks: [block('a')] }],
    ['a short sha-256', { ...INDEX, sha256: new Uint8Array(31) }],
    ['a sha-256 as text', { ...INDEX, sha256: 'x'.repeat(32) }],
    ['a chunker that is no name', { ...INDEX, chunker: 'Fixed!' }],
    ['an endless chunker', { ...INDEX, chunker: 'a'.repeat(33) }],
    ['an identity block', { ...INDEX, blocks: [block('a'), foreign(0x55, 0, 5)] }],
    ['an identity block of 32 bytes', { ...INDEX, blocks: [block('a'), foreign(0x55, 0, 32)] }],
    ['a sha2-512 block', { ...INDEX, blocks: [block('a'), foreign(0x55, 0x13, 64)] }],
    ['a truncated digest', { ...INDEX, blocks: [block('a'), foreign(0x55, 0x1e, 20)] }],
    ['a block of another codec', { ...INDEX, blocks: [block('a'), foreign(0x70, 0x12, 32)] }],
    ['a block that is metadata', { ...INDEX, blocks: [block('a'), link('a')] }],
    ['blocks as bytes', { ...INDEX, blocks: INDEX.blocks.map(cid => cid.bytes) }],
    ['not a map', [INDEX]],
    ['null blocks', { ...INDEX, blocks: null }]
  ]
  for (const [what, value] of wrong) {
    it(`refuses ${what}`, () => {
      const bytes = encode(withoutUndefined(value))
      assert.throws(() => readIndex(bytes), { name: 'InvalidFileIndexError' })
    })
  }

  it('refuses to make what it would not read', () => {
    for (const broken of [
      { ...INDEX, size: 31 }, { ...INDEX, sizes: [30] }, { ...INDEX, sizes: [10.5, 19.5] }, { ...INDEX, sizes: [NaN, 20] }, { ...INDEX, sha256: new Uint8Array(3) },
      { ...INDEX, chunker: '' }
    ]) assert.throws(() => encodeFileIndex(broken), { name: 'InvalidFileIndexError' })
    assert.throws(() => encodeFileIndex({ ...INDEX, blocks: [block('a'), link('b')] }), { name: 'InvalidCidError' })
    const many = FILE_BLOCKS_MAX + 1
    assert.throws(() => encodeFileIndex({ ...INDEX, size: many, blocks: Array<CID>(many).fill(block('a')), sizes: Array<number>(many).fill(1) }), { name: 'LimitExceededError' })
  })

  it('refuses other spellings of the same value, and bytes before, behind and missing', () => {
    const { bytes } = encodeFileIndex(INDEX)
    const hex = Buffer.from(bytes).toString('hex')
    const size = '6473697a65' // text(4) "size"
    const spellings = [
      hex.replace(`${size}181e`, `${size}19001e`), // 30 in two bytes
      hex.replace(`${size}181e`, `${size}1b000000000000001e`),
      hex.replace('820a', '98020a'), // an array of 2 whose length takes a byte of its own
      hex.replace('820a14', '9f0a14ff'), // indefinite
      hex.replace('820a14', '820af94d00'), // 20.0
      `bf${hex.slice(2)}ff`,
      `d9d9f7${hex}`, // "this is CBOR" tag
      `${hex}00`,
      hex.slice(0, -2),
      hex.replace('d82a58250001', 'd82b58250001'), // another tag
      hex.replace('d82a58250001', 'd82a58250101') // a link without its zero
    ]
    for (const spelling of spellings) {
      assert.notEqual(spelling, hex)
      assert.throws(() => readIndex(Buffer.from(spelling, 'hex')), { name: 'InvalidFileIndexError' }, spelling)
    }
    assert.deepEqual(readIndex(Buffer.from(hex, 'hex')), { ...INDEX, blocks: CidList.from(INDEX.blocks) })
    // Keys in another order: what a careless encoder makes of the same value.
    const unsorted = Buffer.concat([
      Buffer.from('a6', 'hex'), ...Object.entries(INDEX).flatMap(([key, value]) => [encode(key), encode(value)])
    ])
    assert.throws(() => readIndex(unsorted), { name: 'InvalidFileIndexError' })
    const twice = Buffer.from(hex.replace('a6', 'a7') + hex.slice(2, 2 + size.length + 4), 'hex')
    assert.throws(() => readIndex(twice), { name: 'InvalidFileIndexError' })
  })

  it('refuses bytes that its CID does not name', () => {
    const { cid, bytes } = encodeFileIndex(INDEX)
    assert.throws(() => decodeFileIndex(cid, Uint8Array.from(bytes, byte => byte ^ 1)), { name: 'HashMismatchError' })
    assert.throws(() => decodeFileIndex(block('x'), bytes), { name: 'InvalidCidError' })
  })

  it('is not harmed by huge, deep or promising bytes', () => {
    const attacks = [
      new Uint8Array(FILE_INDEX_BYTES_MAX + 1),
      new Uint8Array(FILE_INDEX_BYTES_MAX).fill(0x81), // arrays in arrays
      new Uint8Array(FILE_INDEX_BYTES_MAX).fill(0xa1),
      new Uint8Array(FILE_INDEX_BYTES_MAX).fill(0xd8),
      Buffer.from('a66473697a65001b', 'hex'),
      Buffer.from('a66473697a6500' + '6573697a6573' + '9bffffffffffffffff', 'hex'), // an array of 2^64 - 1
      Buffer.from('a66473697a6500' + '6573697a6573' + '9a00061a80', 'hex'), // 400,000 sizes, none there
      Buffer.from('bbffffffffffffffff', 'hex'),
      Buffer.from('a6' + '7bffffffffffffffff', 'hex'),
      new Uint8Array(0)
    ]
    for (const bytes of attacks) {
      const started = performance.now()
      assert.throws(() => readIndex(bytes), { name: 'InvalidFileIndexError' })
      assert.ok(performance.now() - started < 1000)
    }
  })

  it('never reads a mutation as something invalid', () => {
    const { bytes } = encodeFileIndex(INDEX)
    let refusals = 0
    fc.assert(fc.property(fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { minLength: 1, maxLength: 3 }), fc.nat(bytes.length), (changes, length) => {
      const mutated = Uint8Array.from(length % 4 === 0 ? bytes.subarray(0, length) : bytes)
      for (const [at, to] of changes) if (at < mutated.length) mutated[at] = to
      let value: FileIndex
      try { value = readIndex(mutated) } catch (error) {
        refusals++
        assert.equal((error as Error).name, 'InvalidFileIndexError')
        return
      }
      assert.equal(value.sizes.reduce((sum, size) => sum + size, 0), value.size)
      assert.deepEqual(encodeFileIndex(value).bytes, mutated)
    }), { numRuns: 3000 })
    assert.ok(refusals > 100)
  })

  it('is written as the reference encoder writes it, whatever its numbers', () => {
    const sizes = [1, 23, 24, 255, 256, 65_535, 65_536, BLOCK_BYTES_MAX, ...Array<number>(300).fill(BLOCK_BYTES_MAX), ...Array<number>(1030).fill(BLOCK_BYTES_MAX)]
    for (const count of [0, 1, 2, 3, 5, 7, 23, 24, 255, 256, 1030, sizes.length]) {
      const some = sizes.slice(0, count)
      const size = some.reduce((sum, bytes) => sum + bytes, 0)
      const blocks = some.map((_, i) => block(`${i}`))
      const value = { ...INDEX, size, sizes: some, blocks }
      assert.deepEqual(encodeFileIndex(value).bytes, new Uint8Array(encode(value)))
    }
    assert.deepEqual(encodeFileIndex(SMALL).bytes, new Uint8Array(encode(SMALL)))
  })

  it('of many blocks costs a fraction of what a decoder costs that makes a value of each', () => {
    const count = 30_000
    const random = seededRandom(1)
    const blocks = Array.from({ length: count }, () => blockCid(random.bytes(32)))
    const index = { ...INDEX, size: count, blocks, sizes: Array<number>(count).fill(1) }
    const { cid, bytes } = encodeFileIndex(index)
    const own = shortest(() => { decodeFileIndex(cid, bytes); encodeFileIndex(index) })
    const others = shortest(() => { decode(bytes); encode(index) })
    assert.ok(own < others / 2, `${own} ms of ${others}`)
  })

  it('of the largest file decodes within a second or two', () => {
    const count = 360_000
    const blocks = Array.from({ length: count }, (_, i) => block(`${i}`))
    const sizes = Array<number>(count).fill(BLOCK_BYTES_MAX)
    const { cid, bytes } = encodeFileIndex({ ...INDEX, size: count * BLOCK_BYTES_MAX, blocks, sizes })
    const started = performance.now()
    assert.equal(decodeFileIndex(cid, bytes).value.blocks.length, count)
    assert.ok(performance.now() - started < 5000) // 0.6 s alone on the machine
  })
})

describe('model: manifest', () => {
  const names = fc.string({ unit: fc.constantFrom('a', 'b', 'z', '0', '-', '_', '='), minLength: 1, maxLength: 10 })
  const manifests = fc.uniqueArray(names, { minLength: 1, maxLength: 30 }).map((paths): Manifest => ({
    version: 1, files: paths.map((path, size) => ({ path: `d/${path}`, size, index: link(path) }))
  }))

  it('comes back sorted, and the same whatever order it came in', () => {
    fc.assert(fc.property(manifests, manifest => {
      const { cid, bytes, value } = encodeManifest(manifest)
      assert.deepEqual(decodeManifest(cid, bytes).value, value)
      assert.deepEqual(value.files.map(file => file.path), manifest.files.map(file => file.path).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))))
      assert.deepEqual(encodeManifest({ version: 1, files: manifest.files.toReversed() }).bytes, bytes)
    }))
  })

  it('is written as the reference encoder writes it, whatever its numbers', () => {
    const numbers = [0, 1, 23, 24, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 1, 2 ** 52]
    const files = numbers.map((size, i) => ({ path: `${'d/'.repeat(i)}${'f'.repeat(size % 97 + 1)}${100 + i}`, size, index: link(`${i}`) })).sort((a, b) => a.path < b.path ? -1 : 1)
    for (const some of [files, ...numbers.map((_, i) => files.slice(i, i + 1)), Array.from({ length: 300 }, (_, i) => ({ ...file, path: `a${100 + i}` }))]) {
      const value = { version: 1 as const, files: some }
      assert.deepEqual(encodeManifest(value).bytes, new Uint8Array(encode(value)))
    }
  })

  it('of many files costs no more than a codec that knows no rules', () => {
    const files = Array.from({ length: 10_000 }, (_, i) => ({ path: `${'directory/'.repeat(12)}a${100_000 + i}`, size: 100, index: link('i') }))
    const value = { version: 1 as const, files }
    const { cid, bytes } = encodeManifest(value)
    const own = shortest(() => { decodeManifest(cid, bytes); encodeManifest(value) })
    const others = shortest(() => { decode(bytes); encode(value) })
    assert.ok(own < others, `${own} ms of ${others}`)
  })

  const file = { path: 'a', size: 1, index: link('a') }
  const wrong: Array<[string, object]> = [
    ['another version', { ...MANIFEST, version: 2 }],
    ['no files', { version: 1, files: [] }],
    ['an extra key', { ...MANIFEST, name: 'x' }],
    ['an extra key of a file', { version: 1, files: [{ ...file, mode: 1 }] }],
    ['files that are no array', { version: 1, files: file }],
    ['a size as text', { version: 1, files: [{ ...file, size: '1' }] }],
    ['a negative size', { version: 1, files: [{ ...file, size: -1 }] }],
    ['sizes that overflow together', { version: 1, files: [{ ...file, size: Number.MAX_SAFE_INTEGER }, { ...file, path: 'b' }] }],
    ['an index that is a block', { version: 1, files: [{ ...file, index: block('a') }] }],
    ['an index that is an identity CID', { version: 1, files: [{ ...file, index: foreign(0x71, 0, 5) }] }],
    ['unsorted paths', { version: 1, files: [{ ...file, path: 'b' }, file] }],
    ['a path twice', { version: 1, files: [file, file] }],
    ['paths that differ by case', { version: 1, files: [{ ...file, path: 'A' }, file] }],
    ['a file that is a directory', { version: 1, files: [file, { ...file, path: 'a/b' }] }],
    ['too many files', { version: 1, files: Array.from({ length: MANIFEST_FILES_MAX + 1 }, (_, i) => ({ ...file, path: `f${100_000 + i}` })) }],
    ...['..', '../x', '/x', 'a\\b', 'a\0', '', 'é', 'x'.repeat(2000)].map((path): [string, object] => [`the path ${JSON.stringify(path.slice(0, 10))}`, { version: 1, files: [{ ...file, path }] }])
  ]
  for (const [what, value] of wrong) {
    it(`refuses ${what}`, () => { assert.throws(() => readManifest(encode(value)), { name: 'InvalidManifestError' }) })
  }

  it('refuses to be made of nothing, of bad paths, or of too much', () => {
    assert.throws(() => encodeManifest({ version: 1, files: [] }), { name: 'EmptyModelError' })
    assert.throws(() => encodeManifest({ version: 1, files: [{ ...file, path: '../a' }] }), { name: 'InvalidPathError' })
    assert.throws(() => encodeManifest({ version: 1, files: [{ ...file, index: block('a') }] }), { name: 'InvalidCidError' })
    assert.throws(() => encodeManifest({ version: 1, files: [{ ...file, size: 0.5 }] }), { name: 'InvalidManifestError' })
    assert.throws(() => encodeManifest({ version: 1, files: Array.from({ length: MANIFEST_FILES_MAX + 1 }, (_, i) => ({ ...file, path: `f${i}` })) }), { name: 'LimitExceededError' })
  })

  it('refuses huge and deep bytes, text that is not UTF-8, and other people\'s bytes', () => {
    for (const bytes of [
      new Uint8Array(MANIFEST_BYTES_MAX + 1), new Uint8Array(MANIFEST_BYTES_MAX).fill(0x81), new Uint8Array(0),
      Buffer.from(Buffer.from(encodeManifest(MANIFEST).bytes).toString('latin1').replace('config', '\xff\xfenfig'), 'latin1')
    ]) assert.throws(() => readManifest(bytes), { name: 'InvalidManifestError' })
    const { cid, bytes } = encodeManifest(MANIFEST)
    assert.throws(() => decodeManifest(cid, bytes.subarray(1)), { name: 'HashMismatchError' })
  })

  it('never reads a mutation as something invalid', () => {
    const { bytes } = encodeManifest(MANIFEST)
    fc.assert(fc.property(fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { minLength: 1, maxLength: 3 }), changes => {
      const mutated = Uint8Array.from(bytes)
      for (const [at, to] of changes) mutated[at] = to
      let value: Manifest
      try { value = readManifest(mutated) } catch (error) {
        assert.equal((error as Error).name, 'InvalidManifestError')
        return
      }
      assert.deepEqual(encodeManifest(value).bytes, mutated)
    }), { numRuns: 3000 })
  })

  it('and its indexes agree on sizes', async () => {
    const index = encodeFileIndex(INDEX)
    const one = { path: 'a', size: 30, index: index.cid }
    await checkModel({ version: 1, files: [one, { ...one, path: 'b' }] }, [index.value, index.value])
    await assert.rejects(checkModel({ version: 1, files: [{ ...one, size: 31 }] }, [index.value]), { name: 'InvalidManifestError' })
    await assert.rejects(checkModel({ version: 1, files: [one] }, []), { name: 'InvalidManifestError' })
    await assert.rejects(checkModel({ version: 1, files: [one] }, [index.value, index.value]), { name: 'InvalidManifestError' })
    const other = { ...index.value, size: 40, sizes: [20, 20] }
    await assert.rejects(checkModel({ version: 1, files: [one, { ...one, path: 'b', size: 40 }] }, [index.value, other]), { name: 'InvalidManifestError', message: /elsewhere/ })
  })

  it('of very many blocks is compared in turns', async () => {
    const count = 40_000
    const random = seededRandom(2)
    const blocks = Array.from({ length: count }, () => blockCid(random.bytes(32)))
    const index = encodeFileIndex({ ...INDEX, size: count, blocks, sizes: Array<number>(count).fill(1) })
    const { turns } = await countTurns(async () => { await checkModel({ version: 1, files: [{ path: 'a', size: count, index: index.cid }] }, [index.value]) })
    assert.ok(turns > count / 10_000, `${turns} turns`)
  })
})

/** CPU time of the fastest of several runs, in ms. */
function shortest (work: () => void): number {
  return Math.min(...Array.from({ length: 4 }, () => {
    const before = process.threadCpuUsage()
    work()
    const { user, system } = process.threadCpuUsage(before)
    return (user + system) / 1000
  }))
}

function withoutUndefined (value: object): object {
  return Array.isArray(value) ? value : Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined))
}
