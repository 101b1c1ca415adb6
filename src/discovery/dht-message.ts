import { varint } from 'multiformats'
import { DHT_ADDRESSES_PER_PEER_MAX, DHT_LOOKUP_CANDIDATES_MAX, DHT_MESSAGE_BYTES_MAX, ProtocolError } from '../base/index.ts'
import { MULTIHASH_BYTES } from './dht-key.ts'

/**
 * The messages of kad-dht that Shoal sends itself (protobuf; the package does not export its codec). Field numbers as
 * in its src/message/dht.proto; test/unit/discovery/dht-message.test.ts compares with its own codec.
 */
export const MessageType = { addProvider: 2, getProviders: 3, findNode: 4, ping: 5 } as const

export interface DhtPeer {
  /** The multihash of the peer's id. */
  id: Uint8Array
  multiaddrs: Uint8Array[]
}

export interface DhtMessage {
  type: number
  key: Uint8Array | undefined
  closer: DhtPeer[]
  providers: DhtPeer[]
}

const LENGTH_DELIMITED = 2
const TYPE_TAG = 0x08
const KEY_TAG = 0x12
const PROVIDERS_TAG = 0x4a
const PEER_ID_TAG = 0x0a
const PEER_MULTIADDR_TAG = 0x12

export function encodeRequest (type: number, key?: Uint8Array): Uint8Array {
  return concat([Uint8Array.of(TYPE_TAG, type), ...(key === undefined ? [] : [field(KEY_TAG, key)])])
}

/**
 * Writes one ADD_PROVIDER for each key's multihash, each with its length before it, as the stream wants them. All of
 * them have the same length and differ in the key alone, so a million cost no more than copying them.
 */
export function addProviderWriter (provider: DhtPeer): (multihashes: readonly Uint8Array[]) => Uint8Array {
  const peer = concat([field(PEER_ID_TAG, provider.id), ...provider.multiaddrs.map(address => field(PEER_MULTIADDR_TAG, address))])
  const head = concat([Uint8Array.of(TYPE_TAG, MessageType.addProvider, KEY_TAG, MULTIHASH_BYTES)])
  const tail = field(PROVIDERS_TAG, peer)
  const length = head.length + MULTIHASH_BYTES + tail.length
  const before = concat([number(length), head])
  const message = concat([before, new Uint8Array(MULTIHASH_BYTES), tail])
  return multihashes => {
    const bytes = new Uint8Array(message.length * multihashes.length)
    for (const [i, multihash] of multihashes.entries()) {
      bytes.set(message, i * message.length)
      bytes.set(multihash, i * message.length + before.length)
    }
    return bytes
  }
}

/** Throws ProtocolError for anything that is not such a message within the limits. Unknown fields are passed over. */
export function decodeMessage (bytes: Uint8Array): DhtMessage {
  if (bytes.length > DHT_MESSAGE_BYTES_MAX) throw new ProtocolError(`a DHT message of ${bytes.length} bytes is longer than the ${DHT_MESSAGE_BYTES_MAX} allowed`)
  const message: DhtMessage = { type: 0, key: undefined, closer: [], providers: [] }
  for (const { id, value } of fields(bytes)) {
    if (id === 1 && typeof value === 'number') message.type = value
    else if (id === 2 && typeof value === 'object') message.key = value
    else if (id === 8 && typeof value === 'object') push(message.closer, value)
    else if (id === 9 && typeof value === 'object') push(message.providers, value)
  }
  return message
}

function push (peers: DhtPeer[], bytes: Uint8Array): void {
  if (peers.length >= DHT_LOOKUP_CANDIDATES_MAX) return
  const peer: DhtPeer = { id: new Uint8Array(0), multiaddrs: [] }
  for (const { id, value } of fields(bytes)) {
    if (typeof value === 'number') continue
    if (id === 1) peer.id = value
    else if (id === 2 && peer.multiaddrs.length < DHT_ADDRESSES_PER_PEER_MAX) peer.multiaddrs.push(value)
  }
  peers.push(peer)
}

function * fields (bytes: Uint8Array): Generator<{ id: number, value: number | Uint8Array }> {
  let at = 0
  const next = (): number => {
    let value: number, length: number
    try {
      [value, length] = varint.decode(bytes, at)
    } catch (error) {
      throw new ProtocolError('a DHT message is cut short', { cause: error })
    }
    at += length
    if (at > bytes.length) throw new ProtocolError('a DHT message is cut short')
    return value
  }
  while (at < bytes.length) {
    const tag = next()
    const wire = tag % 8
    const id = (tag - wire) / 8
    if (wire === 0) {
      yield { id, value: next() }
      continue
    }
    const length = wire === LENGTH_DELIMITED ? next() : wire === 1 ? 8 : wire === 5 ? 4 : undefined
    if (length === undefined) throw new ProtocolError(`a DHT message has a field of the unknown wire type ${wire}`)
    if (length > bytes.length - at) throw new ProtocolError('a DHT message is cut short')
    const value = bytes.subarray(at, at + length)
    at += length
    if (wire === LENGTH_DELIMITED) yield { id, value }
  }
}

function field (tag: number, bytes: Uint8Array): Uint8Array {
  return concat([Uint8Array.of(tag), number(bytes.length), bytes])
}

function number (value: number): Uint8Array {
  return varint.encodeTo(value, new Uint8Array(varint.encodingLength(value)))
}

function concat (parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(parts)
}
