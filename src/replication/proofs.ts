import { REPLICA_PROOFS_ASKED_MAX } from '../base/index.ts'
import { challengeSeed } from './challenge.ts'
import { isProven } from './planner.ts'
import { FAILED_MAX, Own, WRONG, type Claim, type ModelView } from './model-view.ts'
import { weight } from './rendezvous.ts'
import { exchangeId, type Context } from './context.ts'
import type { Peer } from './peer-table.ts'
import type { ReplicaMessage } from './types.ts'

interface OpenChallenge {
  peer: Peer
  view: ModelView
  shards: number[]
  nonce: Uint8Array
  sentAt: number
  /** It was not answered in time; an answer that comes all the same is as good a proof. */
  late: boolean
}

const ANSWER_TIMEOUT_MS = 10_000
/** Who failed is asked again after this long: a disk may be mended, a message may have been lost. */
const AGAIN_MS = 60_000
const LATE_MAX_MS = 2 * 60_000
/** Who has been up for so long without a break hears what it is asked: states that are not acknowledged come more rarely than every 15 s before that. */
const HEARING_MS = 60_000
/** Shards in one challenge: 64 x 64 KiB to read. */
export const CHALLENGE_SHARDS_MAX = 64
const NONCE_BYTES = 16
/** Who has as many challenges as it may have is asked for more after this long. */
const NEXT_MS = 1_000

/**
 * Asks the other holders of what is here to show that they have it: a digest over random ranges, which only somebody with
 * the bytes can give. Many shards in one challenge, one challenge a peer and model at a time.
 */
export class Proofs {
  readonly #context: Context
  readonly #open = new Map<string, OpenChallenge>()
  /** Peers with an open challenge, by model. */
  readonly #asking = new Map<string, Set<string>>()
  /** How many each of them has, of all models. */
  readonly #asked = new Map<string, number>()

  constructor (context: Context) {
    this.#context = context
  }

  /** Challenges whoever's proof is missing or getting old. */
  tick (view: ModelView): void {
    if (view.policy.target === 0 || !view.local) return
    const asking = this.#asking.get(view.cid)
    for (const [id, claim] of view.claims) {
      const peer = this.#context.peers.get(id)
      if (peer === undefined || peer.liveness !== 'alive' || peer.leaving || claim.committed.count === 0) continue
      if (asking?.has(id) === true) continue
      if ((this.#asked.get(id) ?? 0) >= REPLICA_PROOFS_ASKED_MAX) { this.#context.wake(this.#context.now + NEXT_MS); continue }
      const due = this.#due(view, peer, claim)
      if (due.length > 0) this.#ask(view, peer, claim, due)
    }
  }

  /** Asks as soon as may be, because something is decided by it. */
  hurry (view: ModelView, shard: number, peer: Peer): void {
    const claim = view.claims.get(peer.id)
    if (claim === undefined || this.#asking.get(view.cid)?.has(peer.id) === true || !isHere(view, shard)) return
    if (this.#context.now - (claim.askedAt[shard] ?? -Infinity) < ANSWER_TIMEOUT_MS) return
    this.#ask(view, peer, claim, [shard])
  }

  expire (): void {
    const { now, wake, settings } = this.#context
    for (const [id, challenge] of this.#open) {
      const age = now - challenge.sentAt
      if (age >= LATE_MAX_MS) this.#open.delete(id)
      if (challenge.late) continue
      if (age < ANSWER_TIMEOUT_MS) { wake(challenge.sentAt + ANSWER_TIMEOUT_MS); continue }
      challenge.late = true
      this.#ended(challenge)
      const claim = challenge.view.claims.get(challenge.peer.id)
      if (claim === undefined || challenge.peer.liveness !== 'alive') continue
      // Who comes and goes may speak and not hear: what it showed counts until it runs out.
      const mayBeDeaf = now - challenge.peer.aliveSince < HEARING_MS
      for (const shard of challenge.shards) {
        if (mayBeDeaf && isProven(claim, shard, settings.proofTtlMs, now)) continue
        this.#failed(challenge, claim, shard, Math.min(FAILED_MAX, (claim.failed[shard] ?? 0) + 1))
      }
    }
  }

  /** What an answer must be is computed from this node's own bytes, when it comes. */
  answered (from: string, { id, digests }: Extract<ReplicaMessage, { type: 'proof' }>): void {
    const challenge = this.#open.get(id)
    if (challenge === undefined || challenge.peer.id !== from || digests.length !== challenge.shards.length) return
    const { view, shards, nonce, peer, late } = challenge
    this.#open.delete(id)
    if (!late) this.#ended(challenge)
    this.#context.ports.prove(view.cid, shards, challengeSeed(nonce, this.#context.self.id, from), own => {
      const claim = view.claims.get(peer.id)
      if (claim === undefined) return
      for (const [i, shard] of shards.entries()) {
        const expected = own[i]
        const given = digests[i]
        if (expected === undefined || expected.length === 0 || given === undefined || !isHere(view, shard)) continue
        if (equal(expected, given)) {
          claim.provenAt[shard] = this.#context.now
          claim.failed[shard] = 0
          claim.credit.proven(shard)
          continue
        }
        this.#failed(challenge, claim, shard, WRONG)
        this.#context.ports.send(peer.id, { type: 'disproved', model: view.cid, shard })
        // It may be this node's copy that is bad.
        this.#context.ports.scrub(view.cid, shard)
      }
      this.#context.touch()
    })
  }

  #ended ({ view, peer }: OpenChallenge): void {
    const asking = this.#asking.get(view.cid)
    const left = (this.#asked.get(peer.id) ?? 1) - 1
    if (left === 0) this.#asked.delete(peer.id)
    else this.#asked.set(peer.id, left)
    asking?.delete(peer.id)
    if (asking?.size === 0) this.#asking.delete(view.cid)
  }

  #failed ({ view, peer }: OpenChallenge, claim: Claim, shard: number, times: number): void {
    claim.failed[shard] = Math.max(claim.failed[shard] ?? 0, times)
    this.#context.ports.note({ type: 'proof-failed', peerId: peer.id, model: view.cid, shard })
    this.#context.touch()
  }

  #due (view: ModelView, peer: Peer, claim: Claim): number[] {
    const { now, settings, wake } = this.#context
    const due: number[] = []
    let next = Infinity
    for (let shard = 0; shard < view.shards; shard++) {
      if (!claim.committed.has(shard) || !isHere(view, shard)) continue
      const provenAt = claim.provenAt[shard] ?? -Infinity
      const failed = claim.failed[shard] ?? 0
      const askedAt = claim.askedAt[shard] ?? -Infinity
      // Spread over a quarter of the time, so that not all is asked at once.
      const at = failed >= FAILED_MAX
        ? askedAt + AGAIN_MS
        : Math.max(askedAt + ANSWER_TIMEOUT_MS, provenAt === -Infinity || failed > 0 ? -Infinity : provenAt + settings.proofTtlMs * (0.5 + weight(view.hash, shard, peer.hash) / 4))
      if (at <= now) due.push(shard)
      else next = Math.min(next, at)
      if (due.length >= CHALLENGE_SHARDS_MAX) break
    }
    if (next < Infinity) wake(next)
    return due
  }

  #ask (view: ModelView, peer: Peer, claim: Claim, shards: number[]): void {
    const { now, random, ports, wake } = this.#context
    const id = exchangeId(random)
    const nonce = random.bytes(NONCE_BYTES)
    this.#open.set(id, { peer, view, shards, nonce, sentAt: now, late: false })
    const asking = this.#asking.get(view.cid)
    if (asking === undefined) this.#asking.set(view.cid, new Set([peer.id]))
    else asking.add(peer.id)
    this.#asked.set(peer.id, (this.#asked.get(peer.id) ?? 0) + 1)
    for (const shard of shards) {
      claim.askedAt[shard] = now
      ports.note({ type: 'proof-asked', peerId: peer.id, model: view.cid, shard })
    }
    wake(now + ANSWER_TIMEOUT_MS)
    ports.send(peer.id, { type: 'challenge', id, model: view.cid, shards, nonce })
  }
}

function isHere (view: ModelView, shard: number): boolean {
  const own = view.own[shard]
  return own === Own.Held || own === Own.Committed
}

function equal (a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i])
}
