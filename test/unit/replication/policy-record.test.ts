import assert from 'node:assert/strict'
import { encode, decode } from '@ipld/dag-cbor'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { PolicyReader, readPolicy, signPolicy } from '../../../src/replication/policy-record.ts'

const model = 'bafyr4idqlwoa4bqzmcajfvs7jxj36mdhhg7zxzfao2bs52bxovntohsfe4'

describe('policy records', () => {
  it('come back as they were signed', async () => {
    const key = await generateKeyPair('Ed25519')
    const record = await signPolicy(key, { model, min: 2, target: 3, max: 5, sequence: 7 })
    assert.equal(record.publisher, peerIdFromPrivateKey(key).toString())
    assert.deepEqual(readPolicy(record.bytes), { ...record, bytes: Uint8Array.from(record.bytes) })
    assert.ok(record.bytes.length < 400, `${record.bytes.length} bytes`)
  })

  it('are false when anything in them was changed, added or left out', async () => {
    const key = await generateKeyPair('Ed25519')
    const { bytes } = await signPolicy(key, { model, min: 2, target: 3, max: 5, sequence: 7 })
    const fields = decode<Record<string, unknown>>(bytes)
    const other = peerIdFromPrivateKey(await generateKeyPair('Ed25519')).toString()
    const changes: Array<Record<string, unknown>> = [
      { target: 4 }, { min: 0 }, { sequence: 8 }, { publisher: other }, { version: 2 }, { extra: 1 }, { signature: new Uint8Array(64) },
      { model: 'bafyr4igiaq6vyiukcfqmkh5fwvyhcxklkcdkiu7sz6ltyz6ywd6gy2y2zq' }, { target: 3.5 }, { min: -1 }, { max: 65 }, { model: 5 }, { publisher: 'nobody' }
    ]
    for (const change of changes) assert.equal(readPolicy(encode({ ...fields, ...change })), undefined, JSON.stringify(change))
    for (const name of Object.keys(fields)) assert.equal(readPolicy(encode(Object.fromEntries(Object.entries(fields).filter(([key]) => key !== name)))), undefined, name)
  })

  it('are false in any other encoding, cut short, padded or too long', async () => {
    const { bytes } = await signPolicy(await generateKeyPair('Ed25519'), { model, min: 0, target: 0, max: 0, sequence: 0 })
    assert.equal(readPolicy(bytes.subarray(0, -1)), undefined)
    assert.equal(readPolicy(Buffer.concat([bytes, Buffer.alloc(1)])), undefined)
    assert.equal(readPolicy(new Uint8Array(2_000)), undefined)
    assert.equal(readPolicy(new Uint8Array(0)), undefined)
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Uint8Array.from(bytes)
      flipped[at] = (flipped[at] ?? 0) ^ 1
      assert.equal(readPolicy(flipped), undefined, `byte ${at}`)
    }
  })

  it('are not signed out of bounds', async () => {
    const key = await generateKeyPair('Ed25519')
    for (const policy of [{ min: 3, target: 2, max: 5 }, { min: 0, target: 6, max: 5 }, { min: 0, target: 0, max: 65 }, { min: 0.5, target: 1, max: 1 }]) {
      await assert.rejects(signPolicy(key, { model, sequence: 1, ...policy }), { name: 'UsageError' })
    }
    await assert.rejects(signPolicy(key, { model, sequence: 2 ** 53, min: 0, target: 0, max: 0 }), { name: 'UsageError' })
  })

  it('are remembered by their bytes, the false ones not', async () => {
    const reader = new PolicyReader()
    const { bytes } = await signPolicy(await generateKeyPair('Ed25519'), { model, min: 1, target: 1, max: 1, sequence: 1 })
    assert.ok(reader.read(bytes) === reader.read(Uint8Array.from(bytes)))
    assert.equal(reader.read(bytes.subarray(1)), undefined)
  })
})
