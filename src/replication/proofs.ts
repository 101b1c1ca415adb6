import { challengeSeed } from './challenge.ts'
import { isProven } from './planner.ts'
import { FAILED_MAX, Own, WRONG, type Claim, type ModelView } from './model-view.ts'
import { weight } from './rendezvous.ts'
import { exchangeId, type Context } from './context.ts'
import { CHALLENGE_SHARDS_MAX, ProofPace } from './proof-pace.ts'
import type { Peer } from './peer-table.ts'
import type { ReplicaMessage } from './types.ts'

interface OpenChallenge {
  peer: Peer
  view: ModelView
  shards: number[]
  nonce: Uint8Array
  sentAt: number
  pace: ProofPace
  /** Among all that the peer was asked. */
  number: number
  /** It was not answered in time; an answer that comes all the same is as good a proof. */
  isLate: boolean
  /** Nothing else is asked for instead of it. */
  isAwaited: boolean
  /** It was answered, and this node reads its own bytes to compare. */
  isChecked: boolean
}

const ANSWER_TIMEOUT_MS = 10_000
/** Who failed is asked again after this long: a disk may be mended, a message may have been lost. */
const AGAIN_MS = 60_000
const LATE_MAX_MS = 2 * 60_000
/** Who has been up for so long without a break hears what it is asked: states that are not acknowledged come more rarely than every 15 s before that. */
const HEARING_MS = 60_000
const NONCE_BYTES = 16
/** Who has as many challenges as it may have is asked for more after this long. */
const NEXT_MS = 1_000

/**
 * Asks the other holders of what is here to show that they have it: a digest over random ranges, which only somebody with
 * the bytes can give. Many shards in one challenge, one challenge a peer and model at a time, and of each peer as much as it answers in time.
 */
export class Proofs {
  readonly #context: Context
  readonly #open = new Map<string, OpenChallenge>()
  /** Peers with a challenge that is awaited, by model. */
  readonly #asking = new Map<string, Set<string>>()
  readonly #paces = new WeakMap<Peer, ProofPace>()

  constructor (context: Context) {
    this.#context = context
  }

  /** Challenges whoever's proof of one of these shards is missing or getting old. */
  tick (view: ModelView, from: number, to: number): void {
    if (view.policy.target === 0 || !view.local) return
    const { peers, now, wake } = this.#context
    for (const [id, claim] of view.claims) {
      const peer = peers.get(id)
      if (peer === undefined || peer.liveness !== 'alive' || peer.leaving || claim.committed.count === 0) continue
      const pace = this.#pace(peer)
      const room = this.#isAsking(view, peer) ? 0 : Math.min(CHALLENGE_SHARDS_MAX, pace.room)
      if (pace.isMute(peer.aliveSince)) {
        const due = this.#due(view, peer, claim, { from, to, max: Infinity })
        // Who answers nothing would not answer this either, and to ask for all of it takes long.
        for (const shard of due) {
          claim.askedAt[shard] = now
          this.#missed(view, peer, claim, { shard, times: FAILED_MAX })
        }
        if (room > 0 && due.length > 0) this.#ask(view, peer, claim, due.slice(0, room))
        continue
      }
      if (this.#isAsking(view, peer)) continue
      if (room === 0) { wake(now + NEXT_MS); continue }
      const due = this.#due(view, peer, claim, { from, to, max: room })
      if (due.length > 0) this.#ask(view, peer, claim, due)
    }
  }

  /** Asks as soon as may be, because something is decided by it. */
  hurry (view: ModelView, shard: number, peer: Peer): void {
    const claim = view.claims.get(peer.id)
    if (claim === undefined || this.#isAsking(view, peer) || !isHere(view, shard)) return
    if (this.#context.now - (claim.askedAt[shard] ?? -Infinity) < ANSWER_TIMEOUT_MS) return
    this.#ask(view, peer, claim, [shard])
  }

  expire (): void {
    const { now, wake } = this.#context
    for (const [id, challenge] of this.#open) {
      const { peer, pace, sentAt } = challenge
      const isVoid = now - sentAt >= LATE_MAX_MS || pace.life !== peer.incarnation
      if (isVoid) this.#open.delete(id)
      if (!challenge.isAwaited) continue
      if (challenge.isChecked || pace.life !== peer.incarnation) {
        if (isVoid) this.#ended(challenge)
        continue
      }
      if (now - sentAt < ANSWER_TIMEOUT_MS) { wake(sentAt + ANSWER_TIMEOUT_MS); continue }
      if (!challenge.isLate) pace.late()
      challenge.isLate = true
      // A slow disk: to ask again would only make it slower.
      if (!isVoid && pace.isOnIt(challenge.number, now - ANSWER_TIMEOUT_MS)) { wake(now + NEXT_MS); continue }
      this.#giveUp(challenge)
    }
  }

  #giveUp (challenge: OpenChallenge): void {
    const { view, peer, shards, pace } = challenge
    this.#ended(challenge)
    const claim = view.claims.get(peer.id)
    if (claim === undefined || peer.liveness !== 'alive') return
    pace.missed(challenge, peer.aliveSince, this.#context.now)
    for (const shard of shards) this.#missed(view, peer, claim, { shard, times: Math.min(FAILED_MAX, (claim.failed[shard] ?? 0) + 1) })
  }

  #missed (view: ModelView, peer: Peer, claim: Claim, { shard, times }: { shard: number, times: number }): void {
    const { now, settings } = this.#context
    // Who comes and goes may speak and not hear: what it showed counts until it runs out.
    if (now - peer.aliveSince < HEARING_MS && isProven(claim, shard, settings.proofTtlMs, now)) return
    this.#failed({ view, peer }, claim, shard, times)
  }

  /** What an answer must be is computed from this node's own bytes, when it comes. */
  answered (from: string, { id, digests }: Extract<ReplicaMessage, { type: 'proof' }>): void {
    const challenge = this.#open.get(id)
    if (challenge === undefined || challenge.isChecked || challenge.peer.id !== from || digests.length !== challenge.shards.length) return
    const { view, shards, nonce, peer, pace, number, isLate } = challenge
    pace.answered({ number, shards: shards.length, isLate }, this.#context.now)
    // This node's own disk may be the slow one: it is not asked for more either before it is done.
    challenge.isChecked = true
    this.#context.ports.prove(view.cid, shards, challengeSeed(nonce, this.#context.self.id, from), own => {
      this.#open.delete(id)
      this.#ended(challenge)
      const claim = view.claims.get(peer.id)
      // What it showed in an earlier life says nothing of this one.
      if (claim === undefined || pace.life !== peer.incarnation) return
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
      this.#context.touch(view)
    })
  }

  #ended (challenge: OpenChallenge): void {
    const { view, peer, pace, shards } = challenge
    if (!challenge.isAwaited) return
    challenge.isAwaited = false
    pace.ended(shards.length)
    const asking = this.#asking.get(view.cid)
    asking?.delete(peer.id)
    if (asking?.size === 0) this.#asking.delete(view.cid)
  }

  #isAsking (view: ModelView, peer: Peer): boolean { return this.#asking.get(view.cid)?.has(peer.id) === true }

  #pace (peer: Peer): ProofPace {
    const known = this.#paces.get(peer)
    if (known?.life === peer.incarnation) return known
    const pace = new ProofPace(peer.incarnation)
    this.#paces.set(peer, pace)
    return pace
  }

  #failed ({ view, peer }: { view: ModelView, peer: Peer }, claim: Claim, shard: number, times: number): void {
    claim.failed[shard] = Math.max(claim.failed[shard] ?? 0, times)
    this.#context.ports.note({ type: 'proof-failed', peerId: peer.id, model: view.cid, shard })
    this.#context.touch(view)
  }

  #due (view: ModelView, peer: Peer, claim: Claim, { from, to, max }: { from: number, to: number, max: number }): number[] {
    const { now, settings, wake } = this.#context
    const due: number[] = []
    let next = Infinity
    for (let shard = from; shard < to; shard++) {
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
      if (due.length >= max) break
    }
    if (next < Infinity) wake(next)
    return due
  }

  #ask (view: ModelView, peer: Peer, claim: Claim, shards: number[]): void {
    const { now, random, ports, wake } = this.#context
    const id = exchangeId(random)
    const nonce = random.bytes(NONCE_BYTES)
    const pace = this.#pace(peer)
    this.#open.set(id, { peer, view, shards, nonce, sentAt: now, pace, number: pace.asked(shards.length), isLate: false, isAwaited: true, isChecked: false })
    const asking = this.#asking.get(view.cid)
    if (asking === undefined) this.#asking.set(view.cid, new Set([peer.id]))
    else asking.add(peer.id)
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
