import assert from 'node:assert/strict'
import { generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { Key } from 'interface-datastore'
import { varint } from 'multiformats'
import { base32 } from 'multiformats/bases/base32'
import { seededRandom } from '../../../src/base/index.ts'
import { multihashOf } from '../../../src/discovery/dht-key.ts'
import { MemoryDatastore } from '../../../src/discovery/memory-datastore.ts'
import { ProviderRecords, RECORD_VALIDITY_MS } from '../../../src/discovery/provider-records.ts'

const DIGEST = new Uint8Array(32).fill(4)
const PREFIX = `/dht/provider/${base32.baseEncode(multihashOf(DIGEST))}`
const self = peerIdFromPrivateKey(await generateKeyPairFromSeed('Ed25519', new Uint8Array(32).fill(1)))

const stamp = (at: number): Uint8Array => varint.encodeTo(at, new Uint8Array(varint.encodingLength(at)))

function records (recordsMax = 1_000): ProviderRecords {
  return new ProviderRecords({ inner: new MemoryDatastore(), self, recordsMax, random: seededRandom(1) })
}

async function names (store: ProviderRecords, prefix: string): Promise<string[]> {
  const found: string[] = []
  for await (const { key } of store.query({ prefix })) found.push(key.name())
  return found
}

describe('provider records', () => {
  it('are answered while valid, by this node\'s own stamp, and void after two days', async () => {
    const store = records()
    await store.put(new Key(`${PREFIX}/young`), stamp(Date.now() - RECORD_VALIDITY_MS + 60_000))
    await store.put(new Key(`${PREFIX}/old`), stamp(Date.now() - RECORD_VALIDITY_MS - 60_000))
    await store.put(new Key(`${PREFIX}/torn`), Uint8Array.of(0xff))
    assert.deepEqual(await names(store, PREFIX), ['young'])
    assert.deepEqual(await store.providersOf(DIGEST), ['young'])
    assert.deepEqual((await names(store, '/dht/provider')).sort(), ['old', 'torn', 'young'])
  })

  it('name this node exactly while it provides the key', async () => {
    const store = records()
    const provided = new Set<string>()
    store.claim(digest => provided.has(Buffer.from(digest).toString('hex')))
    assert.deepEqual(await names(store, PREFIX), [])
    provided.add(Buffer.from(DIGEST).toString('hex'))
    assert.deepEqual(await names(store, PREFIX), [self.toString()])
    assert.deepEqual(await store.providersOf(DIGEST), [])
    assert.deepEqual(await names(store, '/dht/provider'), [], 'nothing for a reprovider to do')
    provided.clear()
    assert.deepEqual(await names(store, PREFIX), [])
    assert.deepEqual(await names(store, '/dht/provider/nonsense'), [])
  })

  it('are a fair choice when there are many', async () => {
    const store = records(10_000)
    for (let i = 0; i < 1_000; i++) await store.put(new Key(`${PREFIX}/liar${i}`), stamp(Date.now()))
    await store.put(new Key(`${PREFIX}/honest`), stamp(Date.now()))
    let seen = 0
    for (let i = 0; i < 100; i++) {
      const found = await names(store, PREFIX)
      assert.equal(found.length, 128)
      if (found.includes('honest')) seen++
    }
    assert.ok(seen > 2, `the honest one was named ${seen} times of 100`)
  })

  it('of a few who have much leave room for others', async () => {
    const store = records(1_000)
    const put = async (peer: string, count: number): Promise<number> => {
      let taken = 0
      for (let i = 0; i < count; i++) {
        const key = `/dht/provider/${base32.baseEncode(multihashOf(seededRandom(i + 1).bytes(32)))}/${peer}`
        await store.put(new Key(key), stamp(Date.now())).then(() => { taken++ }, (error: unknown) => { assert.equal(error instanceof Error && error.name, 'LimitExceededError') })
      }
      return taken
    }
    assert.deepEqual([await put('a', 1_000), await put('b', 1_000), await put('c', 1_000)], [500, 250, 125])
    assert.equal(await put('small', 50), 50)
    assert.equal(await put('a', 500), 500, 'renewed, not more')
  })

  it('are bounded', async () => {
    const store = records(10)
    for (let i = 0; i < 10; i++) await store.put(new Key(`${PREFIX}/peer${i}`), stamp(Date.now()))
    await assert.rejects(store.put(new Key(`${PREFIX}/peer10`), stamp(Date.now())), { name: 'LimitExceededError' })
    for (let i = 0; i < 10; i++) await store.put(new Key(`${PREFIX}/peer${i}`), stamp(Date.now())) // renewed, not more
    await store.put(new Key('/peers/x'), new Uint8Array(100))
    await store.delete(new Key(`${PREFIX}/peer0`))
    await store.delete(new Key(`${PREFIX}/peer0`))
    assert.equal((await names(store, '/dht/provider')).length, 9)
    await store.put(new Key(`${PREFIX}/peer10`), stamp(Date.now()))
    await assert.rejects(store.put(new Key(`${PREFIX}/peer11`), stamp(Date.now())), { name: 'LimitExceededError' })
    await assert.rejects(store.put(new Key('/peers/y'), new Uint8Array(100 * 1024)), { name: 'LimitExceededError' })
  })
})

describe('the memory datastore', () => {
  it('finds by prefix what a plain one finds', async () => {
    const store = new MemoryDatastore()
    const paths = ['/peers/a', '/peers/b', '/dht/provider/x/1', '/dht/provider/x/2', '/dht/provider/xy/1', '/dht/record/z', '/other']
    for (const path of paths) store.put(new Key(path), Uint8Array.of(1))
    for (const prefix of ['', '/', '/peers', '/peers/', '/peers/a', '/dht', '/dht/provider', '/dht/provider/x/', '/dht/record', '/none']) {
      const found: string[] = []
      for await (const { key } of store.query({ prefix })) found.push(key.toString())
      const keys: string[] = []
      for await (const key of store.queryKeys({ prefix })) keys.push(key.toString())
      assert.deepEqual(found.sort(), paths.filter(path => path.startsWith(prefix)).sort(), prefix)
      assert.deepEqual(keys.sort(), found)
    }
    store.delete(new Key('/peers/a'))
    store.delete(new Key('/peers/a'))
    assert.equal(store.has(new Key('/peers/a')), false)
    assert.throws(() => store.get(new Key('/peers/a')), { name: 'NotFoundError' })
    assert.equal(store.has(new Key('/peers/b')), true)
  })
})
