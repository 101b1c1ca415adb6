import { Bitfield, MiB, seededRandom } from '../../src/base/index.ts'
import { challengeSeed } from '../../src/replication/challenge.ts'
import { Replicator } from '../../src/replication/replicator.ts'
import { defaultReplication } from '../../src/replication/settings.ts'
import type { ModelClaim, PolicyRecord, ReplicaMessage, ReplicaPorts, ReplicationEvent, ReplicationSettings } from '../../src/replication/types.ts'

type Of<Type extends ReplicaMessage['type']> = Extract<ReplicaMessage, { type: Type }>

/** A record that nobody signed, as the ports of a bench read it. */
export function policyOf (over: Partial<PolicyRecord> = {}): PolicyRecord {
  const record = { model: 'm', min: 2, target: 3, max: 5, sequence: 1, publisher: 'publisher', ...over, bytes: undefined }
  return { ...record, bytes: new TextEncoder().encode(JSON.stringify(record)) }
}

export interface ReplicaBenchInit {
  shards: number
  settings?: Partial<ReplicationSettings>
  policies?: PolicyRecord[]
  /** Models of as many shards each, of 10 MiB; all of it is here. */
  models?: string[]
  kept?: boolean
  ledgerLostMs?: number
}

/** The replicator of a node that has models of many shards, and what it did; the others are whoever is told of, and answer as `answers` says. */
export class ReplicaBench {
  readonly shards: number
  readonly notes: ReplicationEvent[] = []
  readonly saves: number[] = []
  readonly replicator: Replicator
  /** What others say to what was sent to them. */
  answers: (to: string, message: ReplicaMessage) => ReplicaMessage[] = () => []
  reachable: string[] = []
  /** Not heard any more. */
  readonly silent = new Set<string>()
  watched: ReadonlySet<string> = new Set()
  diskFreeBytes = (): number => 1e15
  /** What this node reads of its own bytes is done when this is called; undefined: at once. */
  reads: Array<() => void> | undefined
  find = (model: string): boolean => { this.replicator.found(model, [], this.now); return true }
  now = 1_000_000
  #sent: Array<{ to: string, message: ReplicaMessage }> = []
  #version = 0
  readonly #heardAt = new Map<string, number>()

  constructor ({ shards, settings, policies = [], models = ['m'], kept = true, ledgerLostMs }: ReplicaBenchInit) {
    this.shards = shards
    const ports: ReplicaPorts = {
      send: (to, message) => { this.#sent.push({ to, message }) },
      heardAt: id => {
        if (!this.silent.has(id)) this.#heardAt.set(id, this.now)
        return this.#heardAt.get(id)
      },
      watch: peers => { this.watched = peers },
      reachable: () => this.reachable.filter(id => !this.silent.has(id)),
      find: model => this.find(model),
      pull: () => undefined,
      cancel: () => undefined,
      prove: (_model, numbers, seed, done) => {
        const read = (): void => { done(numbers.map(shard => digestOf(shard, seed))) }
        if (this.reads === undefined) read()
        else this.reads.push(read)
      },
      scrub: () => undefined,
      save: change => { this.saves.push(change.shards.length) },
      savePolicies: () => undefined,
      readPolicy: bytes => ({ ...JSON.parse(new TextDecoder().decode(bytes)) as PolicyRecord, bytes }),
      diskFreeBytes: () => this.diskFreeBytes(),
      note: event => { this.notes.push(event) }
    }
    this.replicator = new Replicator({ self: 'self', labels: {}, settings: { ...defaultReplication, settleMs: 0, donateBytes: 1e15, ...settings }, random: seededRandom(1), ports, commitments: [], policies, ledgerLostMs })
    for (const cid of models) this.replicator.model({ cid, shardBytes: Array.from({ length: shards }, () => 10 * MiB), held: Array.from({ length: shards }, (_, shard) => shard), kept }, this.now)
    this.replicator.start(this.now)
  }

  /** One tick, and all that is said because of it. */
  tick (ms = 1_000): void {
    this.now += ms
    this.replicator.tick(this.now)
    this.deliver()
  }

  run (seconds: number, each: (second: number) => void = () => undefined): void {
    for (let second = 0; second < seconds; second++) { each(second); this.tick() }
  }

  deliver (): void {
    for (let round = 0; round < 10 && this.#sent.length > 0; round++) {
      const sent = this.#sent
      this.#sent = []
      for (const { to, message } of sent) if (!this.silent.has(to)) for (const answer of this.answers(to, message)) this.replicator.receive(to, answer, this.now)
    }
  }

  claim (over: Partial<ModelClaim> = {}): ModelClaim {
    const none = new Bitfield(this.shards).bytes
    return { model: 'm', shards: this.shards, policies: [], committed: none, pending: none, cached: none, members: [], ...over }
  }

  /** Bits of all shards. */
  get all (): Uint8Array { return Bitfield.full(this.shards).bytes }

  /** Each newer than all before, whoever says it. */
  state (from: string, models: Array<Partial<ModelClaim>>, over: Partial<Of<'state'>> = {}): Of<'state'> {
    return {
      type: 'state', incarnation: from, version: ++this.#version, ackIncarnation: '', ackVersion: 0, wantsReply: false, draining: false, leaving: false, freeBytes: 1e12, labels: {}, models: models.map(each => this.claim(each)), ...over
    }
  }

  says (from: string, models: Array<Partial<ModelClaim>>, over: Partial<Of<'state'>> = {}): void { this.replicator.receive(from, this.state(from, models, over), this.now) }

  /** Peers with this state for this shard, by what this node thinks. */
  holders (shard = 0, model = 'm'): string[] { return (this.replicator.shards(model, this.now)?.[shard]?.holders ?? []).map(({ peerId, state }) => `${peerId} ${state}`) }

  offeredTo (): string[] { return this.notes.flatMap(note => note.type === 'offered' ? [note.to] : []) }
}

function digestOf (shard: number, seed: Uint8Array): Uint8Array { return new Uint8Array([shard & 255, shard >> 8, ...seed]) }

/** What `prover`, who has the bytes, answers. */
export function proofOf ({ id, model, shards, nonce }: Of<'challenge'>, prover: string): ReplicaMessage {
  return { type: 'proof', id, model, digests: shards.map(shard => digestOf(shard, challengeSeed(nonce, 'self', prover))) }
}
