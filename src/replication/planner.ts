/**
 * The decisions about one shard, as functions of what is known now. They send nothing and remember nothing, so a seed
 * replays them.
 */
import { weight, weightedScore } from './rendezvous.ts'
import { FAILED_MAX, Own, WRONG, type Claim, type ModelView, type ShardState } from './model-view.ts'
import { DOMAIN_LEVELS, type Peer, type PeerTable } from './peer-table.ts'
import type { ReplicationSettings } from './types.ts'

/** Who has just taken a replica on does not know yet who else has it. */
const NEWCOMER_MS = 10_000
/** Look again this soon whether those who were asked have answered, and do not wait for them for longer. */
const UNHEARD_MS = 1_000
const UNHEARD_MAX_MS = 10_000
/** A search of the DHT takes 15 s at most (searches.ts); one that failed is not waited for. */
const SEARCH_MAX_MS = 20_000
/** States are told anew each ten minutes (states.ts): who has missed two of them, and only answers pings, is fetching nothing any more. */
const PENDING_BELIEVED_MS = 21 * 60_000
/** A pull slower than this, plus five minutes, has hung. The slowest link worth repairing over. */
const SLOWEST_BYTES_PER_MS = 100
const PULL_EXTRA_MS = 5 * 60_000
/** By so many others a node's own copy is in doubt. */
const DISPUTED_MIN = 3

export interface Scene {
  self: Peer
  draining: boolean
  /** It drains, and waits for nobody who may come back. */
  inHaste: boolean
  settled: boolean
  settings: ReplicationSettings
  peers: PeerTable
  now: number
}

/** Who has a shard, sorted by how much that says. */
export interface ShardLook {
  /** Live, proven, not draining: what counts. With this node's own. */
  replicas: number
  /** This node's own counts. */
  own: boolean
  proven: Peer[]
  /** Up and committed, and not (or no longer) proven; an answer may come. */
  claimed: Peer[]
  /** Committed, and gone for now. */
  missing: Peer[]
  draining: Peer[]
  /** Fetching it now. */
  pending: Peer[]
  /** Up, and what they show is not what is here. */
  disputed: number
}

export function look (view: ModelView, shard: number, { self, draining, settings, peers, now }: Scene): ShardLook {
  const own = view.own[shard] === Own.Committed && !draining
  const found: ShardLook = { replicas: own ? 1 : 0, own, proven: [], claimed: [], missing: [], draining: [], pending: [], disputed: 0 }
  for (const [id, claim] of view.claims) {
    const peer = peers.get(id)
    if (peer === undefined || peer === self) continue
    if (claim.committed.has(shard)) {
      if (peer.liveness === 'down' || peer.leaving) found.missing.push(peer)
      else if (peer.draining) found.draining.push(peer)
      else if (isProven(claim, shard, settings.proofTtlMs, now)) { found.proven.push(peer); found.replicas++ } else if ((claim.failed[shard] ?? 0) < FAILED_MAX) found.claimed.push(peer)
      else if (claim.failed[shard] !== WRONG) found.missing.push(peer)
      else found.disputed++
    } else if (isFetching(view, claim, shard, now) && peer.liveness !== 'down' && !peer.draining && !peer.leaving && tellsState(peer, now)) {
      found.pending.push(peer)
    }
  }
  unvouched(found, view, shard, { self, draining, graceMs: settings.graceDefaultMs, now })
  return found
}

/**
 * Who is heard by others and not here cannot be asked for a proof. Others that hold the shard judge it, as long as one comes before this node in
 * rendezvous order: where all waited for each other's judgement, each of another silent peer, nobody would act. For the first its word alone does not
 * count for ever. Nor does it promise anything to who drains, whatever it proved before.
 */
function unvouched (found: ShardLook, view: ModelView, shard: number, { self, draining, graceMs, now }: { self: Peer, draining: boolean, graceMs: number, now: number }): void {
  const claims = found.claimed.filter(peer => isSilent(peer, graceMs, now))
  const silent = claims.length > 0 && (draining || rankOf(view, shard, self, found.proven) === 0) ? claims : []
  const mute = draining ? found.proven.filter(peer => isSilent(peer, graceMs, now)) : []
  if (silent.length + mute.length === 0) return
  found.claimed = found.claimed.filter(peer => !silent.includes(peer))
  found.proven = found.proven.filter(peer => !mute.includes(peer))
  found.replicas -= mute.length
  found.missing.push(...silent, ...mute)
}

/** What it says to be on its way is believed for so long. */
export function tellsState (peer: Peer, now: number): boolean { return now - (peer.stateAt ?? -Infinity) < PENDING_BELIEVED_MS }

/** How long whoever waits for a pull believes in it. */
export function pullTimeoutMs (bytes: number): number {
  return PULL_EXTRA_MS + bytes / SLOWEST_BYTES_PER_MS
}

/** It says so, and not for longer than that may take. */
export function isFetching (view: ModelView, claim: Claim, shard: number, now: number): boolean {
  if (!claim.pending.has(shard)) return false
  const since = claim.credit.fetchesSince(shard)
  return since === -Infinity || now - since < pullTimeoutMs(view.bytes[shard] ?? 0)
}

/** Others hear it, and this node has not for long. */
export function isSilent (peer: Peer, graceMs: number, now: number): boolean {
  return peer.liveness === 'suspect' && now - peer.heardAt >= graceMs
}

export function isProven (claim: Claim, shard: number, ttlMs: number, now: number): boolean {
  return (claim.failed[shard] ?? 0) < FAILED_MAX && now - (claim.provenAt[shard] ?? -Infinity) <= ttlMs
}

/** This node's place among the holders that could act: 0 acts first. */
export function rankOf (view: ModelView, shard: number, self: Peer, others: readonly Peer[]): number {
  const own = weight(view.hash, shard, self.hash)
  let rank = 0
  for (const other of others) {
    const theirs = weight(view.hash, shard, other.hash)
    if (theirs > own || (theirs === own && other.id < self.id)) rank++
  }
  return rank
}

export type Why = 'last-copy' | 'below-min' | 'below-target' | 'spread' | 'drain'

export interface Need {
  why: Why
  /** How many more there should be on their way. */
  wanted: number
  /** Not before. */
  dueAt: number
  /** Who may take it, beside those who hold it; undefined: whoever has space. */
  fits?: (peer: Peer, holders: readonly Peer[]) => boolean
  /** It was offered to somebody. */
  made?: () => void
}

/** What this node has to do about a shard, if it holds it; undefined: nothing. `offered`: its own open offers. */
export function needOf (view: ModelView, shard: number, seen: ShardLook, offered: number, scene: Scene): Need | undefined {
  const { policy } = view
  const { settings, self, settled } = scene
  const state = view.states[shard]
  if (state === undefined || policy.target === 0 || seen.replicas >= policy.target) return undefined
  const left = leftOf(seen)
  const last = left <= 1
  const coming = seen.pending.length + offered
  // Of a last copy one more is asked for whenever those asked have taken far too long.
  const hedged = last && state.pendingSince !== undefined ? Math.min(coming, Math.floor((scene.now - state.pendingSince) / hedgeMs(view.bytes[shard] ?? 0))) : 0
  // A word does not take the place that a last copy needs.
  const taken = offered + (last ? Math.min(seen.pending.length, Math.max(0, policy.max - seen.replicas - 1)) : seen.pending.length)
  const lacking = Math.min(policy.target - seen.replicas - seen.claimed.length - coming + hedged, policy.max - seen.replicas - taken)
  // The last copy gets one companion at once. More wait for those that may come back.
  const cautious = last && (scene.peers.brake || (seen.missing.length > 0 && scene.now < graceBegin(seen, state, scene) + settings.graceTwoCopiesMs))
  const wanted = cautious ? Math.min(lacking, 2 - left - coming + hedged) : lacking
  if (wanted <= 0) return undefined
  if (!settled && !scene.draining) return undefined
  // Most of a swarm gone at once is a cut cable: both sides would copy everything.
  if (scene.peers.brake && !last) return undefined
  const why = scene.draining ? 'drain' : last ? 'last-copy' : left < policy.min ? 'below-min' : 'below-target'
  // More of them show something else than the same: what is here is bad, more likely than what all of those have.
  const isDoubtful = seen.disputed >= DISPUTED_MIN && seen.disputed > seen.proven.length
  const doubtedUntil = isDoubtful ? state.offeredAt + settings.disputedEveryMs : -Infinity
  const [now, awaitedUntil] = last || scene.inHaste ? [wanted, -Infinity] : beyondAwaited(lacking, seen, view, scene)
  if (scene.draining) return { why, wanted: isDoubtful ? 1 : Math.min(wanted, now), dueAt: Math.max(scene.now, awaitedUntil, doubtedUntil) }
  let rank = rankOf(view, shard, self, [...seen.proven, ...seen.claimed])
  // Who drains hands over by itself; the others only when it does not.
  if (seen.draining.length > 0 && (seen.missing.length === 0 || !last)) rank++
  // Where a brake or somebody's word has held all back, they take turns from its end on, not all at once.
  const since = Math.max(graceEnd(seen, view, state, scene), state.replicasSince, state.coveredAt, scene.peers.brakeOffAt)
  const dueAt = Math.max(since + rank * settings.rankDelayMs, view.kept ? -Infinity : state.committedAt + NEWCOMER_MS, doubtedUntil)
  return { why, wanted: isDoubtful ? 1 : Math.min(wanted, now), dueAt: Math.max(dueAt, awaitedUntil, unheardUntil(view, dueAt, scene)) }
}

/**
 * Each of the missing may come back within its own time, also where another has been missing for longer: how many of those that are lacking
 * nobody need wait for, or one and from when on.
 */
function beyondAwaited (lacking: number, seen: ShardLook, view: ModelView, { settings, now }: Scene): [number, number] {
  const left = leftOf(seen)
  const patienceMs = (peer: Peer): number => left === 2 && !(peer.leaving && left >= view.policy.min) ? settings.graceTwoCopiesMs : settings.graceDefaultMs
  // Who is up and gives no proof is not on its way back, nor who has drained and said goodbye.
  const away = seen.missing.filter(peer => (peer.liveness !== 'alive' || peer.leaving) && !peer.draining)
  const awaited = away.map(peer => peer.heardAt + patienceMs(peer)).filter(until => until > now).sort((a, b) => a - b)
  const wanted = lacking - awaited.length
  return wanted > 0 ? [wanted, -Infinity] : [1, awaited[awaited.length - lacking] ?? -Infinity]
}

/** As long as a slow link takes, and a minute. */
function hedgeMs (bytes: number): number { return 60_000 + bytes / 10_000 }

/**
 * When to look again, where nobody has told yet who else has it, or others are said to have to do with the model and have not said what they have.
 * The need bounds the wait, and not those others: who names new ones all the time would put it off for ever.
 */
function unheardUntil (view: ModelView, dueAt: number, { peers, now }: Scene): number {
  if (!view.searched && now - (view.askedAt ?? now) < SEARCH_MAX_MS) return now + UNHEARD_MS
  const until = Math.min(now + UNHEARD_MS, Math.max(dueAt, (view.askedAt ?? -Infinity) + SEARCH_MAX_MS) + UNHEARD_MAX_MS)
  for (const [id, metAt] of view.members) if (now - metAt < UNHEARD_MAX_MS && peers.get(id)?.liveness !== 'down') return until
  return -Infinity
}

/** Copies to go by when it is about haste: those that came back a moment ago will have proven themselves in a moment. */
function leftOf ({ replicas, claimed }: ShardLook): number { return replicas + claimed.length }

/** Until when the missing may come back. */
export function graceEnd (seen: ShardLook, view: ModelView, state: ShardState | undefined, scene: Scene): number {
  return graceBegin(seen, state, scene) + graceOf(seen, view, scene)
}

/**
 * When it fell below its target; a last copy, when it became the last: where hosts are restarted one after the other, the next one
 * stops while the one before is up again and has not been heard yet.
 */
function graceBegin (seen: ShardLook, state: ShardState | undefined, { now }: Scene): number {
  const belowSince = state?.belowSince ?? now
  return leftOf(seen) <= 1 ? Math.max(belowSince, state?.replicasSince ?? belowSince) : belowSince
}

/** How long the missing may come back. Nobody waits for holders that never were, nor for those that have had their time. */
function graceOf (seen: ShardLook, view: ModelView, { settings, peers, now }: Scene): number {
  const { policy, members } = view
  const { missing } = seen
  const left = leftOf(seen)
  const awaited = missing.filter(peer => peer.liveness !== 'down' || now - peer.downAt < settings.graceDefaultMs)
  // Members that this node has never heard may be holders that went before it came.
  if (awaited.length === 0 && ![...members.keys()].some(id => peers.get(id)?.liveness !== 'alive')) return 0
  // An orderly stop announces its return. Even beside a last copy it is believed for as long as a silent peer is.
  const orderly = awaited.length > 0 && awaited.every(peer => peer.leaving)
  if (left <= 1) return orderly ? Math.max(settings.graceLastCopyMs, settings.downMs) : settings.graceLastCopyMs
  // Whoever had gone before this node came may have said goodbye to others, who know better how long to wait, and act when it is time.
  if (left >= policy.min && (orderly || awaited.length === 0)) return settings.graceDefaultMs
  return left === 2 ? settings.graceTwoCopiesMs : settings.graceDefaultMs
}

/** 3: nobody of them is in its zone; 2: nor rack; 1: nor host; 0: one is on the same host. */
export function distance (peer: Peer, others: readonly Peer[]): number {
  for (let level = 0; level < DOMAIN_LEVELS.length; level++) {
    if (others.every(other => other.domains[level] !== peer.domains[level])) return DOMAIN_LEVELS.length - level
  }
  return 0
}

/** Whether all of them are in one domain of this level. */
export function inOne (level: number, peers: readonly Peer[]): boolean {
  return peers.every(peer => peer.domains[level] === peers[0]?.domains[level])
}

export interface Candidate {
  peer: Peer
  /** It has the bytes and only has to promise to keep them. */
  cached: boolean
}

/**
 * The best of `candidates` for a shard: one that has it already, else in a domain nobody else is in, else by rendezvous
 * weighted by free space. Everybody who looks at the same candidates picks the same.
 */
export function pick (view: ModelView, shard: number, holders: readonly Peer[], candidates: readonly Candidate[]): Candidate | undefined {
  let best: Candidate | undefined
  let bestKey: [number, number, number] = [0, 0, 0]
  for (const candidate of candidates) {
    const { peer, cached } = candidate
    // Whole halvings of free space, so that small changes of it do not change the order.
    const share = Math.max(1, Math.floor(Math.log2(Math.max(2, peer.freeBytes / 2 ** 20))))
    const key: [number, number, number] = [cached ? 1 : 0, distance(peer, holders), weightedScore(weight(view.hash, shard, peer.hash), share)]
    if (best === undefined || compare(key, bestKey) > 0) { best = candidate; bestKey = key }
  }
  return best
}

function compare (a: readonly number[], b: readonly number[]): number {
  for (const [i, value] of a.entries()) if (value !== b[i]) return value - (b[i] ?? 0)
  return 0
}

/**
 * This node's place in the order in which surplus replicas go: first those whose domain another holder is in, then the
 * lowest in rendezvous order. 0 goes first.
 */
export function trimPlace (view: ModelView, shard: number, self: Peer, others: readonly Peer[]): number {
  const all = [self, ...others]
  const key = (peer: Peer): [number, number] => [distance(peer, all.filter(other => other !== peer)), weight(view.hash, shard, peer.hash)]
  const own = key(self)
  return others.filter(other => compare(key(other), own) < 0).length
}
