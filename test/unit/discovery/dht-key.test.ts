import assert from 'node:assert/strict'
import fc from 'fast-check'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import { sha256 } from 'multiformats/hashes/sha2'
import { commonPrefixLength, compareDistance, dhtKey, digestOf, flipBit, kadIdOfDigest, multihashOf, prefixBounds } from '../../../src/discovery/dht-key.ts'

const place = fc.uint8Array({ minLength: 32, maxLength: 32 })
const big = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).toString('hex')}`)

describe('the DHT key of a thing', () => {
  it('is a raw CIDv1 of the sha2-256 of its multihash, whatever its codec and hash', async () => {
    const blake3 = Digest.create(0x1e, new Uint8Array(32).fill(5))
    const expected = CID.createV1(0x55, await sha256.digest(blake3.bytes))
    assert.equal(dhtKey(CID.createV1(0x55, blake3)).toString(), expected.toString())
    assert.equal(dhtKey(CID.createV1(0x71, blake3)).toString(), expected.toString())
  })

  it('stands in the key space where kad-dht puts it', async () => {
    const digest = new Uint8Array(32).fill(9)
    const multihash = (await sha256.digest(multihashOf(digest))).digest
    assert.deepEqual(Buffer.from(kadIdOfDigest(digest)), Buffer.from(multihash))
    assert.deepEqual(digestOf(multihashOf(digest)), digest)
    assert.equal(digestOf(new Uint8Array(34)), undefined)
  })
})

describe('places in the key space', () => {
  it('compares distances as numbers do', () => {
    fc.assert(fc.property(place, place, place, (target, a, b) => {
      const difference = (big(target) ^ big(a)) - (big(target) ^ big(b))
      assert.equal(Math.sign(compareDistance(target, a, b)), difference === 0n ? 0 : difference < 0n ? -1 : 1)
    }))
  })

  it('counts shared leading bits, and a flipped bit ends them', () => {
    fc.assert(fc.property(place, fc.integer({ min: 0, max: 255 }), (a, at) => {
      assert.equal(commonPrefixLength(a, a), 256)
      assert.equal(commonPrefixLength(a, flipBit(a, at)), at)
    }))
  })

  it('bounds a corner exactly', () => {
    fc.assert(fc.property(place, place, fc.integer({ min: 0, max: 256 }), (corner, other, length) => {
      const { low, high } = prefixBounds(corner, length)
      const inside = Buffer.compare(low, other) <= 0 && Buffer.compare(other, high) <= 0
      assert.equal(inside, commonPrefixLength(corner, other) >= length)
    }))
  })
})
