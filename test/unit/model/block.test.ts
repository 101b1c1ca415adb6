import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import fc from 'fast-check'
import {
  blockCid, checkBlockCid, checkMetadataCid, cidKey, createBlockHasher, decodeCid, digestMatches, hashBlock, hasherFor,
  hashMetadata, parseModelCid, verifyBytes
} from '../../../src/model/index.ts'

/** From the BLAKE3 test vectors (BLAKE3-team/BLAKE3, test_vectors.json): the empty input. */
const EMPTY_BLAKE3 = 'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262'

function cid (codec: number, hash: number, digest: Uint8Array): CID {
  return CID.createV1(codec, Digest.create(hash, digest))
}

describe('model: block CIDs', () => {
  it('are CIDv1, raw, BLAKE3-256, and never change', () => {
    assert.equal(Buffer.from(hashBlock(new Uint8Array(0)).multihash.digest).toString('hex'), EMPTY_BLAKE3)
    assert.equal(hashBlock(new Uint8Array(0)).toString(), 'bafkr4ifpcne3t5pzugtkaqcn5i3nzskjtpfslsnnyejlpte2spfoihzsmi')
    assert.equal(hashBlock(Buffer.from('a shoal of fish')).toString(), 'bafkr4ifrppmvjkxc7ikbsa4wzpk2elc4nhor7qefkkcnc54irg75pvchmi')
    assert.equal(hashMetadata(Buffer.from('a shoal of fish')).toString(), 'bafyr4ifrppmvjkxc7ikbsa4wzpk2elc4nhor7qefkkcnc54irg75pvchmi')
    const made = hashBlock(Buffer.from('x'))
    assert.deepEqual([made.version, made.code, made.multihash.code, made.multihash.size, made.bytes.length], [1, 0x55, 0x1e, 32, 36])
    assert.ok(CID.parse(made.toString()).equals(made))
    assert.ok(blockCid(made.multihash.digest).equals(made))
  })

  it('come out the same from slices, and a hasher starts over after digest and reset', () => {
    const hasher = createBlockHasher()
    fc.assert(fc.property(fc.uint8Array({ maxLength: 5000 }), fc.array(fc.nat(5000)), fc.boolean(), (bytes, cuts, spoil) => {
      if (spoil) { hasher.update(Buffer.from('left over')); hasher.reset() }
      let from = 0
      for (const to of [...cuts.filter(cut => cut <= bytes.length).sort((a, b) => a - b), bytes.length]) {
        hasher.update(bytes.subarray(from, to))
        from = to
      }
      assert.ok(blockCid(hasher.digest()).equals(hashBlock(bytes)))
    }))
  })

  it('hash shared and WebAssembly memory like any other', () => {
    const plain = randomBytes(70_001)
    const shared = new Uint8Array(new SharedArrayBuffer(plain.length))
    const wasm = new Uint8Array(new WebAssembly.Memory({ initial: 2, maximum: 2 }).buffer, 1, plain.length)
    for (const bytes of [shared, wasm]) {
      bytes.set(plain)
      assert.ok(hashBlock(bytes).equals(hashBlock(plain)))
    }
  })

  it('verify bytes under both hashes', () => {
    const bytes = randomBytes(1000)
    const sha = cid(0x55, 0x12, createHash('sha256').update(bytes).digest())
    for (const named of [hashBlock(bytes), sha]) {
      assert.equal(verifyBytes(named, bytes), true)
      assert.equal(verifyBytes(named, bytes.subarray(1)), false)
      const hasher = hasherFor(named)
      for (let round = 0; round < 2; round++) {
        hasher.update(bytes.subarray(0, 10))
        hasher.reset()
        hasher.update(bytes.subarray(0, 400))
        hasher.update(bytes.subarray(400))
        assert.equal(digestMatches(named, hasher.digest()), true)
      }
      assert.equal(digestMatches(named, named.multihash.digest.subarray(1)), false)
    }
    assert.throws(() => hasherFor(cid(0x55, 0x13, new Uint8Array(64))), { name: 'InvalidCidError' })
    assert.throws(() => verifyBytes(cid(0x55, 0, new Uint8Array(4)), bytes), { name: 'InvalidCidError' })
  })

  it('survive the wire and the map key', () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), fc.constantFrom(0x55, 0x71), fc.constantFrom(0x1e, 0x12), (digest, codec, hash) => {
      const made = cid(codec, hash, digest)
      const wire = Uint8Array.from(made.bytes)
      const decoded = decodeCid(wire)
      wire.fill(0)
      assert.ok(decoded.equals(made))
      assert.equal(decoded.toString(), made.toString())
      assert.deepEqual(decoded.bytes, made.bytes)
      assert.ok(decodeCid(Buffer.from(cidKey(decoded), 'latin1')).equals(made))
    }))
    assert.notEqual(cidKey(hashBlock(Buffer.from('a'))), cidKey(hashBlock(Buffer.from('b'))))
  })

  it('are refused off the wire unless exact', () => {
    const good = hashBlock(Buffer.from('x')).bytes
    const change = (at: number, to: number): Uint8Array => Uint8Array.from(good, (byte, i) => (i === at ? to : byte))
    const longSpelling = Uint8Array.of(1, 0xd5, 0x00, ...good.subarray(2)) // 0x55 in two bytes
    const identity = cid(0x55, 0, Buffer.from('hello')).bytes
    for (const bytes of [
      new Uint8Array(0), good.subarray(0, 35), Uint8Array.of(...good, 0), change(0, 0), change(0, 2), change(1, 0x70), change(2, 0x13),
      change(2, 0), change(3, 31), longSpelling, identity, new Uint8Array(36), new Uint8Array(1_000_000).fill(0xff)
    ]) assert.throws(() => decodeCid(bytes), { name: 'InvalidCidError' })
    fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), bytes => {
      try { assert.equal(decodeCid(bytes).bytes.length, 36) } catch (error) { assert.equal((error as Error).name, 'InvalidCidError') }
    }))
  })
})

describe('model: CIDs a user gives', () => {
  const digest = hashMetadata(Buffer.from('x')).multihash.digest

  it('parse in any base to one spelling', () => {
    const good = hashMetadata(Buffer.from('x'))
    assert.ok(parseModelCid(good.toString()).equals(good))
    const sha = cid(0x71, 0x12, digest)
    assert.equal(parseModelCid(sha.toString()).toString(), sha.toString())
  })

  const refused: Array<[string, string, RegExp]> = [
    ['nothing', '', /is not a CID/],
    ['words', 'llama-3', /is not a CID/],
    ['terminal controls', 'b\u001b[31m\u202e', /\\u001b.*\\u202e/],
    ['a very long text', 'b'.repeat(1_000_000), /1000000 characters/],
    ['a truncated text', hashMetadata(Buffer.from('x')).toString().slice(0, -3), /is not a CID: it is mistyped, or cut short; give the model CID that shoal add printed$/],
    ['surrounding space', ` ${hashMetadata(Buffer.from('x')).toString()}`, /is not a CID/],
    ['a block', hashBlock(Buffer.from('x')).toString(), /single block/],
    ['dag-pb', cid(0x70, 0x12, digest).toString(), /codec 0x70/],
    ['CIDv0', CID.createV0(Digest.create(0x12, digest)).toString(), /CIDv0/],
    ['identity', cid(0x71, 0, Buffer.from('hello')).toString(), /identity/],
    ['identity raw', cid(0x55, 0, Buffer.from('hello')).toString(), /identity/],
    ['sha2-512', cid(0x71, 0x13, new Uint8Array(64)).toString(), /hash 0x13/],
    ['a truncated digest', cid(0x71, 0x1e, digest.subarray(0, 20)).toString(), /20 bytes/],
    ['a long digest', cid(0x71, 0x1e, new Uint8Array(40)).toString(), /40 bytes/]
  ]
  for (const [what, text, message] of refused) {
    it(`refuse ${what}`, () => { assert.throws(() => parseModelCid(text), { name: 'InvalidCidError', message }) })
  }

  it('never throw anything else', () => {
    fc.assert(fc.property(fc.string({ maxLength: 100 }), text => {
      assert.throws(() => parseModelCid(text), { name: 'InvalidCidError' })
    }))
  })

  it('are told apart by codec', () => {
    assert.throws(() => checkBlockCid(cid(0x71, 0x1e, digest)), { name: 'InvalidCidError' })
    assert.throws(() => checkMetadataCid(cid(0x55, 0x1e, digest)), { name: 'InvalidCidError' })
    checkBlockCid(cid(0x55, 0x12, digest))
    checkMetadataCid(cid(0x71, 0x1e, digest))
  })
})
