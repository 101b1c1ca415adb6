import assert from 'node:assert/strict'
import { pathToFileURL } from 'node:url'
import fc from 'fast-check'
import { varint } from 'multiformats'
import { MessageType, addProviderWriter, decodeMessage, encodeRequest, type DhtPeer } from '../../../src/discovery/dht-message.ts'

interface KadMessage { type: string, key?: Uint8Array, closer: Array<{ id: Uint8Array, multiaddrs: Uint8Array[] }>, providers: Array<{ id: Uint8Array, multiaddrs: Uint8Array[] }> }
interface KadCodec { encode: (message: Partial<KadMessage>) => Uint8Array, decode: (bytes: Uint8Array) => KadMessage }

const bytes = fc.uint8Array({ minLength: 1, maxLength: 80 })
const peer = fc.record({ id: bytes, multiaddrs: fc.array(bytes, { maxLength: 5 }) })
const plain = (value: Uint8Array): number[] => Array.from(value)

describe('DHT messages', () => {
  let kad: KadCodec

  before(async () => {
    // The package does not export its codec; its file is there.
    const path = `${import.meta.dirname}/../../../node_modules/@libp2p/kad-dht/dist/src/message/dht.js`
    const module = await import(pathToFileURL(path).href) as { Message: KadCodec }
    kad = module.Message
  })

  it('are read by kad-dht as they were meant', () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 34, maxLength: 34 }), key => {
      const message = kad.decode(encodeRequest(MessageType.findNode, key))
      assert.equal(message.type, 'FIND_NODE')
      assert.deepEqual(plain(message.key ?? new Uint8Array()), plain(key))
    }))
    assert.equal(kad.decode(encodeRequest(MessageType.ping)).type, 'PING')
    assert.equal(kad.decode(encodeRequest(MessageType.getProviders, new Uint8Array(34))).type, 'GET_PROVIDERS')
  })

  it('announce many keys one after the other, each with its length', () => {
    fc.assert(fc.property(fc.array(fc.uint8Array({ minLength: 34, maxLength: 34 }), { maxLength: 20 }), peer, (keys, provider) => {
      const written = addProviderWriter(provider)(keys)
      let at = 0
      for (const key of keys) {
        const [length, size] = varint.decode(written, at)
        at += size
        const message = kad.decode(written.subarray(at, at + length))
        at += length
        assert.equal(message.type, 'ADD_PROVIDER')
        assert.deepEqual(plain(message.key ?? new Uint8Array()), plain(key))
        assert.deepEqual(message.providers.map(({ id, multiaddrs }) => ({ id: plain(id), multiaddrs: multiaddrs.map(plain) })), [{ id: plain(provider.id), multiaddrs: provider.multiaddrs.map(plain) }])
      }
      assert.equal(at, written.length)
    }))
  })

  it('of kad-dht are read as they were meant', () => {
    fc.assert(fc.property(bytes, fc.array(peer, { maxLength: 5 }), fc.array(peer, { maxLength: 5 }), (key, closer, providers) => {
      const message = decodeMessage(Uint8Array.from(kad.encode({ type: 'GET_PROVIDERS', key, closer, providers })))
      assert.equal(message.type, MessageType.getProviders)
      assert.deepEqual(plain(message.key ?? new Uint8Array()), plain(key))
      const shape = (peers: readonly DhtPeer[]): unknown => peers.map(({ id, multiaddrs }) => ({ id: plain(id), multiaddrs: multiaddrs.map(plain) }))
      assert.deepEqual(shape(message.closer), shape(closer))
      assert.deepEqual(shape(message.providers), shape(providers))
    }))
  })

  it('from a hostile peer give a ProtocolError or a bounded message, nothing else', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), garbage => {
      try {
        const message = decodeMessage(garbage)
        assert.ok(message.closer.length + message.providers.length <= garbage.length)
      } catch (error) {
        assert.equal(error instanceof Error && error.name, 'ProtocolError')
      }
    }), { numRuns: 2_000 })
    const manyAddresses = kad.encode({ type: 'FIND_NODE', closer: [{ id: Uint8Array.of(1), multiaddrs: Array.from({ length: 500 }, () => Uint8Array.of(4)) }], providers: [] })
    assert.equal(decodeMessage(Uint8Array.from(manyAddresses)).closer[0]?.multiaddrs.length, 16)
    assert.throws(() => decodeMessage(new Uint8Array(600 * 1024)), { name: 'ProtocolError' })
  })
})
