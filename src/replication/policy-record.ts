import { createPublicKey, verify } from 'node:crypto'
import { encode } from '@ipld/dag-cbor'
import type { PrivateKey } from '@libp2p/interface'
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id'
import { POLICY_BYTES_MAX, REPLICAS_MAX, UsageError } from '../base/index.ts'
import { parseModelCid } from '../model/index.ts'
import { decodeControl } from '../transfer/index.ts'
import type { Policy, PolicyRecord } from './types.ts'

/** Keeps these signatures apart from whatever else a node signs with the same key. */
const DOMAIN = Buffer.from('shoal-policy-1\0')
const KEYS = ['max', 'min', 'model', 'publisher', 'sequence', 'signature', 'target', 'version']
const SIGNATURE_BYTES = 64

/**
 * Makes a record in the name of the node whose key this is: canonical DAG-CBOR of {version: 1, model, min, target, max,
 * sequence, publisher, signature}, the signature over a prefix and the same map without it. Throws UsageError.
 */
export async function signPolicy (key: PrivateKey, policy: Policy & { model: string, sequence: number }): Promise<PolicyRecord> {
  const { model, min, target, max, sequence } = policy
  if (!isPolicy(min, target, max)) throw new UsageError(`a policy needs whole numbers 0 <= min <= target <= max <= ${REPLICAS_MAX}, not ${min}, ${target}, ${max}`)
  if (!Number.isSafeInteger(sequence) || sequence < 0) throw new UsageError(`${sequence} is no sequence number`)
  const publisher = peerIdFromPrivateKey(key).toString()
  const said = { version: 1, model, min, target, max, sequence, publisher } as const
  const signature = await key.sign(signedBytes(said))
  return { model, min, target, max, sequence, publisher, bytes: Uint8Array.from(encode({ ...said, signature })) }
}

/** A record as it came; undefined unless all of it is in order and its publisher signed it. */
export function readPolicy (bytes: Uint8Array): PolicyRecord | undefined {
  if (bytes.length > POLICY_BYTES_MAX) return undefined
  try {
    const value = decodeControl(bytes)
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
    const found: Partial<Record<string, unknown>> = Object.assign(Object.create(null), value)
    const keys = Object.keys(found).sort()
    if (keys.length !== KEYS.length || !keys.every((key, i) => key === KEYS[i])) return undefined
    const { version, model, min, target, max, sequence, publisher, signature } = found
    if (version !== 1 || typeof model !== 'string' || typeof publisher !== 'string') return undefined
    if (!isWhole(min) || !isWhole(target) || !isWhole(max) || !isPolicy(min, target, max) || !isWhole(sequence)) return undefined
    if (!(signature instanceof Uint8Array) || signature.length !== SIGNATURE_BYTES) return undefined
    if (parseModelCid(model).toString() !== model) return undefined
    if (!isSignedBy(publisher, signedBytes({ version, model, min, target, max, sequence, publisher }), signature)) return undefined
    // Its own copy: what came over the wire is valid during the call only.
    return { model, min, target, max, sequence, publisher, bytes: Uint8Array.from(bytes) }
  } catch {
    return undefined // not CBOR, no CID, no peer id: false in whichever way
  }
}

/** With node's own crypto: libp2p's verify may answer later, and the replicator cannot wait. */
function isSignedBy (publisher: string, bytes: Uint8Array, signature: Uint8Array): boolean {
  const peerId = peerIdFromString(publisher)
  if (peerId.type !== 'Ed25519' || peerId.toString() !== publisher) return false
  const key = createPublicKey({ format: 'jwk', key: { kty: 'OKP', crv: 'Ed25519', x: Buffer.from(peerId.publicKey.raw).toString('base64url') } })
  return verify(undefined, bytes, key, signature)
}

function signedBytes (said: Policy & { version: 1, model: string, sequence: number, publisher: string }): Uint8Array {
  return Buffer.concat([DOMAIN, encode(said)])
}

function isPolicy (min: number, target: number, max: number): boolean {
  return [min, target, max].every(isWhole) && min <= target && target <= max && max <= REPLICAS_MAX
}

function isWhole (value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

/** Records that were read lately, by their bytes: each state of each peer repeats them, and checking a signature takes 0.1 ms. */
const READ_MAX = 4_096

export class PolicyReader {
  readonly #read = new Map<string, PolicyRecord>()

  read (bytes: Uint8Array): PolicyRecord | undefined {
    if (bytes.length > POLICY_BYTES_MAX) return undefined
    const key = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
    const known = this.#read.get(key)
    if (known !== undefined) return known
    const record = readPolicy(bytes)
    if (record === undefined) return undefined
    if (this.#read.size >= READ_MAX) for (const oldest of this.#read.keys()) { this.#read.delete(oldest); break }
    this.#read.set(key, record)
    return record
  }
}
