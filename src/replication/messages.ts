import { encode } from '@ipld/dag-cbor'
import {
  LABELS_MAX, LABEL_BYTES_MAX, POLICY_BYTES_MAX, ProtocolError, REPLICA_CHALLENGE_SHARDS_MAX, REPLICA_MEMBERS_MAX, REPLICA_MESSAGE_BYTES_MAX, REPLICA_MODELS_PER_STATE_MAX,
  REPLICA_POLICIES_MAX, REPLICA_SHARDS_MAX, REPLICA_STATE_PARTS_MAX, SHARD_BYTES_MAX, asError
} from '../base/index.ts'
import { DIGEST_BYTES, parseModelCid } from '../model/index.ts'
import { decodeControl, exactly, nodePeerId, whole } from '../transfer/index.ts'
import type { DeclineReason, ModelClaim, ReplicaMessage } from './types.ts'

const REASONS: readonly DeclineReason[] = ['held', 'space', 'busy', 'draining', 'unknown-model', 'leaving']
/** Drawn by the sender to recognise an answer. */
const ID = /^[\x21-\x7e]{1,64}$/
const NONCE_BYTES_MIN = 16
const NONCE_BYTES_MAX = 64

/**
 * The body of one message, canonical DAG-CBOR. Throws RangeError for one that is larger than any receiver takes: the
 * sender's defect, who has to say less.
 */
export function encodeMessage (message: ReplicaMessage): Uint8Array {
  const bytes = encode(forWire(message))
  if (bytes.length > REPLICA_MESSAGE_BYTES_MAX) throw new RangeError(`a ${message.type} message of ${bytes.length} bytes; at most ${REPLICA_MESSAGE_BYTES_MAX} are allowed`)
  return bytes
}

/**
 * Sizes and times may come out of arithmetic; on the wire they are whole numbers. Lists end where receivers end them: a
 * member who signs records under many names must not make honest messages too long to be taken. Those known first stay.
 */
function forWire (message: ReplicaMessage): ReplicaMessage {
  if (message.type === 'seen') return { ...message, ageMs: wholeOf(message.ageMs) }
  if (message.type === 'offer') return { ...message, policies: message.policies.slice(0, REPLICA_POLICIES_MAX), holders: message.holders.slice(0, REPLICA_MEMBERS_MAX) }
  if (message.type !== 'state') return message
  return {
    ...message,
    freeBytes: wholeOf(message.freeBytes),
    models: message.models.map(claim => ({ ...claim, policies: claim.policies.slice(0, REPLICA_POLICIES_MAX), members: claim.members.slice(0, REPLICA_MEMBERS_MAX) }))
  }
}

function wholeOf (value: number): number {
  return Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.floor(value)))
}

/** What came off the wire, checked in full. Its bytes are copies or its own. Throws ProtocolError. */
export function decodeMessage (bytes: Uint8Array): ReplicaMessage {
  if (bytes.length > REPLICA_MESSAGE_BYTES_MAX) throw new ProtocolError(`a message of ${bytes.length} bytes`)
  const value = decodeControl(Uint8Array.from(bytes)) // views into it outlive the call; a Buffer would slice() to itself
  const type = typeof value === 'object' && value !== null && 'type' in value ? value.type : undefined
  const read = typeof type === 'string' && Object.hasOwn(READERS, type) ? READERS[type as ReplicaMessage['type']] : undefined
  if (read === undefined) throw new ProtocolError('a message of no known type')
  return read(value)
}

/** Throws RangeError unless other nodes will take these labels. */
export function checkLabels (labels: Record<string, string>): void {
  try {
    readLabels(labels)
  } catch (error) {
    throw new RangeError(asError(error).message, { cause: error })
  }
}

const READERS: { [Type in ReplicaMessage['type']]: (value: unknown) => Extract<ReplicaMessage, { type: Type }> } = {
  state: value => {
    const part = typeof value === 'object' && value !== null && 'part' in value ? readPart(value.part) : undefined
    const found = exactly(value, [
      'type', 'incarnation', 'version', 'ackIncarnation', 'ackVersion', 'wantsReply', 'draining', 'leaving', 'freeBytes', 'labels', 'models', ...part === undefined ? [] : ['part']
    ])
    const models = list(found.models, REPLICA_MODELS_PER_STATE_MAX, 'models', readClaim)
    if (new Set(models.map(({ model }) => model)).size < models.length) throw new ProtocolError('a state that names a model twice')
    return {
      type: 'state',
      incarnation: id(found.incarnation),
      version: whole(found.version, 0),
      ackIncarnation: found.ackIncarnation === '' ? '' : id(found.ackIncarnation),
      ackVersion: whole(found.ackVersion, 0),
      wantsReply: flag(found.wantsReply),
      draining: flag(found.draining),
      leaving: flag(found.leaving),
      freeBytes: whole(found.freeBytes, 0),
      labels: readLabels(found.labels),
      models,
      ...part === undefined ? {} : { part }
    }
  },
  ask: value => {
    const found = exactly(value, ['type', 'peer'])
    return { type: 'ask', peer: nodePeerId(found.peer) }
  },
  seen: value => {
    const found = exactly(value, ['type', 'peer', 'ageMs'])
    return { type: 'seen', peer: nodePeerId(found.peer), ageMs: whole(found.ageMs, 0) }
  },
  offer: value => {
    const found = exactly(value, ['type', 'id', 'model', 'shard', 'shards', 'bytes', 'urgent', 'policies', 'holders'])
    const shards = whole(found.shards, 1, REPLICA_SHARDS_MAX)
    return {
      type: 'offer',
      id: id(found.id),
      model: model(found.model),
      shard: whole(found.shard, 0, shards - 1),
      shards,
      bytes: whole(found.bytes, 0, SHARD_BYTES_MAX),
      urgent: flag(found.urgent),
      policies: list(found.policies, REPLICA_POLICIES_MAX, 'policies', policyBytes),
      holders: list(found.holders, REPLICA_MEMBERS_MAX, 'holders', nodePeerId)
    }
  },
  accept: value => ({ type: 'accept', ...idAndShard(exactly(value, ['type', 'id', 'model', 'shard'])) }),
  decline: value => {
    const found = exactly(value, ['type', 'id', 'model', 'shard', 'reason'])
    const reason = REASONS.find(known => known === found.reason)
    if (reason === undefined) throw new ProtocolError('a decline without a known reason')
    return { type: 'decline', ...idAndShard(found), reason }
  },
  commit: value => ({ type: 'commit', ...shardOf(exactly(value, ['type', 'model', 'shard'])) }),
  abandon: value => ({ type: 'abandon', ...shardOf(exactly(value, ['type', 'model', 'shard'])) }),
  challenge: value => {
    const found = exactly(value, ['type', 'id', 'model', 'shards', 'nonce'])
    const shards = list(found.shards, REPLICA_CHALLENGE_SHARDS_MAX, 'shards', item => whole(item, 0, REPLICA_SHARDS_MAX - 1))
    if (shards.length === 0 || new Set(shards).size < shards.length) throw new ProtocolError('a challenge over no shard, or one twice')
    return { type: 'challenge', id: id(found.id), model: model(found.model), shards, nonce: bytesOf(found.nonce, NONCE_BYTES_MIN, NONCE_BYTES_MAX) }
  },
  proof: value => {
    const found = exactly(value, ['type', 'id', 'model', 'digests'])
    const digests = list(found.digests, REPLICA_CHALLENGE_SHARDS_MAX, 'digests', item => bytesOf(item, 0, DIGEST_BYTES))
    if (digests.some(({ length }) => length !== 0 && length !== DIGEST_BYTES)) throw new ProtocolError('a proof with a digest that was cut')
    return { type: 'proof', id: id(found.id), model: model(found.model), digests }
  },
  disproved: value => ({ type: 'disproved', ...shardOf(exactly(value, ['type', 'model', 'shard'])) }),
  release: value => ({ type: 'release', ...idAndShard(exactly(value, ['type', 'id', 'model', 'shard'])) }),
  keep: value => {
    const found = exactly(value, ['type', 'id', 'model', 'shard', 'ok'])
    return { type: 'keep', ...idAndShard(found), ok: flag(found.ok) }
  }
}

function readClaim (value: unknown): ModelClaim {
  const found = exactly(value, ['model', 'shards', 'policies', 'committed', 'pending', 'cached', 'members'])
  const shards = whole(found.shards, 0, REPLICA_SHARDS_MAX)
  return {
    model: model(found.model),
    shards,
    policies: list(found.policies, REPLICA_POLICIES_MAX, 'policies', policyBytes),
    committed: bitfield(found.committed, shards),
    pending: bitfield(found.pending, shards),
    cached: bitfield(found.cached, shards),
    members: list(found.members, REPLICA_MEMBERS_MAX, 'members', nodePeerId)
  }
}

function readPart (value: unknown): { number: number, of: number } {
  const found = exactly(value, ['number', 'of'])
  const of = whole(found.of, 2, REPLICA_STATE_PARTS_MAX)
  return { number: whole(found.number, 0, of - 1), of }
}

function readLabels (value: unknown): Record<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new ProtocolError('labels that are no map')
  const entries = Object.entries(value)
  if (entries.length > LABELS_MAX) throw new ProtocolError(`${entries.length} labels; at most ${LABELS_MAX} are allowed`)
  const labels: Array<[string, string]> = entries.map(([name, text]: [string, unknown]) => {
    const fits = typeof text === 'string' && Buffer.byteLength(name) <= LABEL_BYTES_MAX && Buffer.byteLength(text) <= LABEL_BYTES_MAX
    if (!fits) throw new ProtocolError(`a label whose name or value is no text of at most ${LABEL_BYTES_MAX} bytes`)
    return [name, text]
  })
  return Object.fromEntries(labels)
}

function shardOf (found: Record<'model' | 'shard', unknown>): { model: string, shard: number } {
  return { model: model(found.model), shard: whole(found.shard, 0, REPLICA_SHARDS_MAX - 1) }
}

function idAndShard (found: Record<'id' | 'model' | 'shard', unknown>): { id: string, model: string, shard: number } {
  return { id: id(found.id), ...shardOf(found) }
}

function list<T> (value: unknown, most: number, what: string, read: (item: unknown) => T): T[] {
  if (!Array.isArray(value)) throw new ProtocolError(`something else where a list of ${what} belongs`)
  if (value.length > most) throw new ProtocolError(`${value.length} ${what}; at most ${most} are allowed`)
  return value.map(read)
}

function flag (value: unknown): boolean {
  if (typeof value !== 'boolean') throw new ProtocolError('something else where yes or no belongs')
  return value
}

function id (value: unknown): string {
  if (typeof value !== 'string' || !ID.test(value)) throw new ProtocolError('something else where an id belongs')
  return value
}

function model (value: unknown): string {
  if (typeof value !== 'string') throw new ProtocolError('something else where a model CID belongs')
  let spelled: string
  try {
    spelled = parseModelCid(value).toString()
  } catch (error) {
    throw new ProtocolError(`something else where a model CID belongs: ${asError(error).message}`, { cause: error })
  }
  if (spelled !== value) throw new ProtocolError('a model CID in another spelling')
  return value
}

function policyBytes (value: unknown): Uint8Array {
  return bytesOf(value, 1, POLICY_BYTES_MAX)
}

function bytesOf (value: unknown, least: number, most: number): Uint8Array {
  if (!(value instanceof Uint8Array) || value.length < least || value.length > most) throw new ProtocolError(`something else where ${least} to ${most} bytes belong`)
  return value
}

function bitfield (value: unknown, length: number): Uint8Array {
  const need = Math.ceil(length / 8)
  const bytes = bytesOf(value, need, need)
  if ((length & 7) !== 0 && ((bytes[need - 1] ?? 0) >> (length & 7)) !== 0) throw new ProtocolError('a bitfield with bits past its end')
  return bytes
}
