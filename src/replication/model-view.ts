import { Bitfield, PEERS_TRACKED_MAX } from '../base/index.ts'
import { Credit, type Spent } from './credit.ts'
import { NO_POLICY, effectivePolicy, mergePolicies, type Merged } from './policies.ts'
import { RepairPace } from './repair-pace.ts'
import { nameHash } from './rendezvous.ts'
import type { ShardCount } from './report.ts'
import type { LocalModel, ModelClaim, Policy, PolicyRecord } from './types.ts'

/** What this node has of a shard, and what it promised. */
export const Own = { None: 0, Held: 1, Pulling: 2, Committed: 3, Broken: 4 } as const
export type Own = typeof Own[keyof typeof Own]

/** Missing answers in a row after which a holder that is up counts as missing; and what a wrong answer counts. */
export const FAILED_MAX = 2
export const WRONG = 3

/** When something is said, how long a proof counts, and of which shards this node asks for one: of those that are here and wanted. */
export interface Hearing { now: number, proofTtlMs: number, isAsked: (shard: number) => boolean }

/** What one peer says of its part of a model, and what it has shown. */
export class Claim {
  committed: Bitfield
  pending: Bitfield
  cached: Bitfield
  readonly #shards: number
  /** Not before somebody asks: of most of what is claimed nothing is here to prove it with, and whoever claims says how many shards there are. */
  #shown: { provenAt: Float64Array, failed: Uint8Array, askedAt: Float64Array } | undefined
  /** Since when it has been fetching, or when the last of it came, as far as this node heard; undefined: it does not fetch. */
  fetchingSince: number | undefined
  /** Since when this is what it said in an earlier life, and not again in this one. */
  doubtedAt: number | undefined
  readonly credit: Credit

  constructor (shards: number, spent?: Spent) {
    this.credit = new Credit(shards, spent)
    this.committed = new Bitfield(shards)
    this.pending = new Bitfield(shards)
    this.cached = new Bitfield(shards)
    this.#shards = shards
  }

  /** When this node last saw a right answer, by shard; -Infinity: never. */
  get provenAt (): Float64Array { return this.#proofs.provenAt }
  /** Challenges in a row that were not answered rightly, by shard. */
  get failed (): Uint8Array { return this.#proofs.failed }
  /** When it was last asked, by shard. */
  get askedAt (): Float64Array { return this.#proofs.askedAt }

  get #proofs (): { provenAt: Float64Array, failed: Uint8Array, askedAt: Float64Array } {
    return this.#shown ??= { provenAt: new Float64Array(this.#shards).fill(-Infinity), failed: new Uint8Array(this.#shards), askedAt: new Float64Array(this.#shards).fill(-Infinity) }
  }

  /** Says whether what it has committed changed. */
  update ({ committed, pending, cached }: ModelClaim, hearing: Hearing): boolean {
    const shards = this.#shards
    const before = this.committed
    const fetched = this.pending
    this.doubtedAt = undefined
    this.committed = new Bitfield(shards, committed.slice())
    this.pending = new Bitfield(shards, pending.slice())
    this.cached = new Bitfield(shards, cached.slice())
    for (const shard of this.committed) if (!before.has(shard)) this.renewed(shard, hearing)
    for (const shard of this.pending) if (!fetched.has(shard)) this.credit.fetches(shard, hearing.now, hearing.proofTtlMs)
    for (let at = 0; at < committed.length; at++) if (before.bytes[at] !== committed[at]) return true
    return false
  }

  /** It has just got it: neither what it showed nor where it failed before was about these bytes. It is asked at once, and believed before that at most once. */
  renewed (shard: number, { now, proofTtlMs, isAsked }: Hearing): void {
    const isBelieved = !isAsked(shard) || this.credit.claims(shard, now, proofTtlMs)
    if (isBelieved && this.#shown === undefined) return
    this.failed[shard] = isBelieved ? 0 : Math.max(FAILED_MAX, this.failed[shard] ?? 0)
    this.provenAt[shard] = -Infinity
    this.askedAt[shard] = -Infinity
  }

  /** It started again: what it showed before says nothing about what its disk has now. */
  doubt (hearing: Hearing): void {
    this.doubtedAt ??= hearing.now
    for (let shard = 0; this.#shown !== undefined && shard < this.#shards; shard++) if (!this.committed.has(shard)) this.failed[shard] = 0
    for (const shard of this.committed) this.renewed(shard, hearing)
    this.#shown?.provenAt.fill(-Infinity)
    this.#shown?.askedAt.fill(-Infinity)
    this.fetchingSince = undefined
  }
}

/** The changing part of one shard. */
export class ShardState {
  /** Since when it has been below target; undefined: it is not. */
  belowSince: number | undefined
  /** How many counted at the last look, and since when it has been so few. */
  replicas = 0
  replicasSince = -Infinity
  /** It has had its target once: falling below again is a loss. */
  reached = false
  releasedAt = -Infinity
  /** Since when there has been one too many, how often in a row somebody said no to letting go of it, and no question before then: of a surplus, and of a drain. */
  surplusSince: number | undefined
  refusals = 0
  surplusAgainAt = -Infinity
  drainAgainAt = -Infinity
  /** This node told another that it keeps its replica, until then. */
  keepUntil = -Infinity
  /** Since when somebody has been fetching the companion of a last copy. */
  pendingSince: number | undefined
  /** When what others say last made up for all that was lacking. */
  coveredAt = -Infinity
  /** Since when this node's cached copy has been all there is. */
  orphanedSince: number | undefined
  /** How often in a row somebody accepted and did not get it, and no offer before then. */
  abandoned = 0
  offerAt = -Infinity
  /** When it was last offered to somebody. */
  offeredAt = -Infinity
  /** When this node took it on. */
  committedAt = -Infinity
  /** When this node got a copy that nobody had asked it to keep. */
  heldAt = -Infinity
  /** All replicas were in one domain at this level (of DOMAIN_LEVELS) and those above when it last had its target: one made elsewhere makes one of them redundant. */
  crowded: number | undefined
  /** Next attempt to fetch a broken replica again, how often in a row that failed or did not last, and when it last succeeded. */
  repairAt = -Infinity
  mendsFailed = 0
  mendedAt = -Infinity
  #declined: Map<string, number> | undefined

  /** Who said no, and until when not to ask again. Made for the few shards that are offered to somebody. */
  get declined (): Map<string, number> { return this.#declined ??= new Map() }
}

/** What this node knows of one model's replicas: its own part, and each peer's. */
export class ModelView {
  readonly cid: string
  readonly hash: number
  readonly shards: number
  /** The node itself, whose own word on how many there shall be is always heard. */
  readonly #self: string
  /** 0 where it is not known. */
  readonly bytes: Float64Array
  readonly own: Uint8Array
  #states: ShardState[] | undefined
  readonly claims = new Map<string, Claim>()
  /** Peers that are said to have to do with it and have not been heard about it, and since when. */
  readonly members = new Map<string, number>()
  /** Peers that have just said that they have nothing of it, and when: what others think they have is hearsay. */
  readonly without = new Map<string, number>()
  /** What was believed on their word alone of peers that have nothing to say of it now: who takes it back and says it again is believed no more for that. */
  readonly spent = new Map<string, Spent>()
  /** The newest record of each publisher. */
  policies: ReadonlyMap<string, PolicyRecord> = new Map()
  policy: Policy = NO_POLICY
  /** One was told and could not be recorded: what is wanted of it is not what `policy` says. */
  policyRefused = false
  /** How fast its replicas come to this node, and to each of the others. */
  readonly paceHere = new RepairPace()
  readonly paceElsewhere = new RepairPace()
  /** Published or pinned here. */
  kept = false
  /** It is in the store; else only peers, or a user long ago, spoke of it. */
  local = false
  findAt = -Infinity
  /** When it was first asked who else has it, and whether an answer has come: before that nobody knows that this is the last copy. */
  askedAt: number | undefined
  searched = false
  /** When somebody was last met for it. */
  metAt = -Infinity
  /** When the user removed it here; what is told of it then is that there is nothing. */
  forgottenAt: number | undefined
  /** It was offered and accepted, and nothing of it has come yet: what is said of it may be anything. */
  isForeign = false
  /** By whom, and since when nothing of it is on its way. */
  offeredBy: string | undefined
  idleSince: number | undefined
  /** When it is to be looked at next, in which tick it last was, and which shard is the next of a look that is not over (looks.ts). */
  lookAt = -Infinity
  lookedIn = 0
  lookedTo = 0
  /** How few replicas the most urgent of what was lacking had. */
  fewest = Infinity
  /** What the look that is going on, and the last one that is over, found of its replicas. */
  counting: ShardCount | undefined
  count: ShardCount | undefined
  /** Others have to do with it than before. */
  circleChanged = true
  /** Bytes by what this node has of a shard; undefined: to be summed up anew. */
  #sums: Float64Array | undefined

  constructor (cid: string, shards: number, self = '') {
    this.cid = cid
    this.#self = self
    this.hash = nameHash(cid)
    this.shards = shards
    this.bytes = new Float64Array(shards)
    this.own = new Uint8Array(shards)
  }

  /** Made when something of it is here: of what others only speak of, nothing is to be remembered by shard. */
  get states (): readonly ShardState[] { return this.#states ??= Array.from({ length: this.shards }, () => new ShardState()) }
  get statesMade (): readonly ShardState[] { return this.#states ?? [] }

  /** This peer has to do with it, or is said to. */
  concerns (peer: string): boolean { return this.claims.has(peer) || this.members.has(peer) }

  /** Look at it no later than then. */
  wake (at: number): void { if (at < this.lookAt) this.lookAt = at }

  /** Call it when `own` or `bytes` was written to. */
  changed (): void { this.#sums = undefined }

  hasAny (...wanted: Own[]): boolean { return wanted.some(own => this.own.includes(own)) }

  learn ({ shardBytes, kept }: LocalModel): void {
    for (const [shard, bytes] of shardBytes.entries()) this.bytes[shard] = bytes
    this.changed()
    this.kept = kept
    this.local = true
    this.forgottenAt = undefined
    this.isForeign = false
  }

  /** What would be known with these records, to be saved before it is adopted. */
  merge (given: Iterable<PolicyRecord>): Merged { return mergePolicies(this.policies, given, this.#self) }

  adopt ({ records }: Merged): void {
    this.policies = records
    this.policy = effectivePolicy(records.values())
  }

  claim (peer: string): Claim {
    let claim = this.claims.get(peer)
    if (claim === undefined) {
      this.claims.set(peer, claim = new Claim(this.shards, this.spent.get(peer)))
      this.circleChanged = true
    }
    return claim
  }

  /** It has nothing of it, or is gone. */
  dropClaim (peer: string): boolean {
    const spent = this.claims.get(peer)?.credit.spent
    if (spent === undefined) return false
    this.spent.delete(peer)
    if (Math.max(spent.claimed, spent.pending) > -Infinity) this.spent.set(peer, spent)
    for (const oldest of this.spent.keys()) {
      if (this.spent.size <= PEERS_TRACKED_MAX) break
      this.spent.delete(oldest)
    }
    this.circleChanged = true
    return this.claims.delete(peer)
  }

  hearing (now: number, proofTtlMs: number): Hearing {
    return { now, proofTtlMs, isAsked: shard => this.policy.target > 0 && (this.own[shard] === Own.Held || this.own[shard] === Own.Committed) }
  }

  /** It says what it said before. */
  repeats (peer: string, { committed, pending, cached }: ModelClaim): boolean {
    const claim = this.claims.get(peer)
    return claim !== undefined && claim.doubtedAt === undefined && claim.committed.hasBytes(committed) && claim.pending.hasBytes(pending) && claim.cached.hasBytes(cached)
  }

  /** A peer told what it has: says whether what it has committed changed. */
  told (peer: string, told: ModelClaim, hearing: Hearing): boolean {
    const claim = this.claim(peer)
    const before = claim.pending
    const changed = claim.update(told, hearing)
    this.#measure(claim, before, hearing.now)
    return changed
  }

  /** A peer has got what it was fetching, or will not. */
  ended (peer: string, shard: number, ok: boolean, hearing: Hearing): void {
    const claim = this.claims.get(peer)
    if (claim === undefined) return
    const before = claim.pending.clone()
    if (ok && !claim.committed.has(shard)) claim.renewed(shard, hearing)
    if (ok) claim.committed.set(shard)
    claim.pending.set(shard, false)
    this.#measure(claim, before, hearing.now)
  }

  #measure (claim: Claim, before: Bitfield, now: number): void {
    let bytes = 0
    for (const shard of before) if (!claim.pending.has(shard) && claim.committed.has(shard)) bytes += this.bytes[shard] ?? 0
    if (bytes > 0 && claim.fetchingSince !== undefined) this.paceElsewhere.came(bytes, now - claim.fetchingSince, now)
    if (claim.pending.count === 0) claim.fetchingSince = undefined
    else if (bytes > 0) claim.fetchingSince = now
    else claim.fetchingSince ??= now
  }

  /** Shards with this state here, as a bitfield. */
  bits (...wanted: Own[]): Bitfield {
    const bits = new Bitfield(this.shards)
    if (!this.hasAny(...wanted)) return bits
    const isWanted = tableOf(wanted)
    for (let shard = 0; shard < this.shards; shard++) if (isWanted[this.own[shard] as Own] === 1) bits.set(shard)
    return bits
  }

  bytesOf (...wanted: Own[]): number {
    if (this.#sums === undefined) {
      this.#sums = new Float64Array(Object.keys(Own).length)
      for (const [shard, own] of this.own.entries()) this.#sums[own] = (this.#sums[own] ?? 0) + (this.bytes[shard] ?? 0)
    }
    let sum = 0
    for (const own of wanted) sum += this.#sums[own] ?? 0
    return sum
  }
}

function tableOf (wanted: readonly Own[]): Uint8Array {
  const table = new Uint8Array(Object.keys(Own).length)
  for (const own of wanted) table[own] = 1
  return table
}
