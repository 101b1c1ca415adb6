import { generateKeyPair } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { varint } from 'multiformats'

/** A field of a protobuf message. */
function field (number: number, bytes: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.of(number << 3 | 2), varint.encodeTo(bytes.length, new Uint8Array(varint.encodingLength(bytes.length))), bytes])
}

/** One of kad-dht's answers, framed: peers that are not there provide whatever was asked for. */
export async function fakeProviders (count: number): Promise<Uint8Array> {
  const providers = await Promise.all(Array.from({ length: count }, async (_, i) => {
    const id = peerIdFromPrivateKey(await generateKeyPair('Ed25519')).toMultihash().bytes
    return field(9, Buffer.concat([field(1, id), field(2, multiaddr(`/memory/nobody-${i}`).bytes)]))
  }))
  const message = Buffer.concat([Buffer.of(0x08, 3), ...providers])
  return Buffer.concat([varint.encodeTo(message.length, new Uint8Array(varint.encodingLength(message.length))), message])
}
