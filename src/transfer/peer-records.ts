import { HOLDERS_PER_MODEL_MAX, HOLDER_MODELS_MAX, PEERS_TRACKED_MAX, type Clock } from '../base/index.ts'
import { PeerScore } from './peer-score.ts'
import { RateMeter } from './rate.ts'
import type { PeerTransferStatus, TransportKind } from './types.ts'

export interface PeerRecord {
  readonly received: RateMeter
  readonly sent: RateMeter
  readonly score: PeerScore
  usedAt: number
  transport: TransportKind | undefined
}

/** Use is noted this often: for each piece it would churn the map, whose every rebuild is garbage that lives long. */
const USE_NOTED_MS = 1_000

/** What is remembered of every peer that bytes went to or came from. Bounded; the longest unused are forgotten first, banned ones last. */
export class PeerRecords {
  readonly #clock: Clock
  /** In order of last use. */
  readonly #records = new Map<string, PeerRecord>()
  readonly #banned = new Map<string, PeerRecord>()

  constructor (clock: Clock) { this.#clock = clock }

  get (peerId: string): PeerRecord {
    const banned = this.#banned.get(peerId)
    if (banned !== undefined) return banned
    const now = this.#clock.monotonic()
    let record = this.#records.get(peerId)
    if (record === undefined) {
      record = { received: new RateMeter(now), sent: new RateMeter(now), score: new PeerScore(now), usedAt: now, transport: undefined }
      trim(this.#records, PEERS_TRACKED_MAX - 1)
    } else {
      if (now - record.usedAt < USE_NOTED_MS) return record
      record.usedAt = now
      this.#records.delete(peerId)
    }
    this.#records.set(peerId, record)
    return record
  }

  isBanned (peerId: string): boolean { return this.#banned.has(peerId) }

  ban (peerId: string, reason: string): void {
    const record = this.get(peerId)
    record.score.ban(reason)
    this.#records.delete(peerId)
    trim(this.#banned, PEERS_TRACKED_MAX - 1)
    this.#banned.set(peerId, record)
  }

  status (): PeerTransferStatus[] {
    const now = this.#clock.monotonic()
    return [...this.#records, ...this.#banned].map(([peerId, { received, sent, score, transport }]) => ({
      peerId,
      transport,
      receiveRate: received.rate(now),
      sendRate: sent.rate(now),
      receivedBytes: received.total,
      sentBytes: sent.total,
      score: score.value(now),
      banned: score.banReason !== undefined,
      banReason: score.banReason
    }))
  }
}

interface Holder { presentBytes: number, complete: boolean, at: number }

/** An inventory that nobody listens to any more is good for this long. */
const HOLDER_KNOWN_MS = 10 * 60_000

/** Who told last to have how much of which model. */
export class Holders {
  readonly #clock: Clock
  readonly #models = new Map<string, Map<string, Holder>>()

  constructor (clock: Clock) { this.#clock = clock }

  note (model: string, peerId: string, presentBytes: number, complete: boolean): void {
    let holders = this.#models.get(model)
    if (holders === undefined) {
      trim(this.#models, HOLDER_MODELS_MAX - 1)
      this.#models.set(model, holders = new Map())
    }
    holders.delete(peerId)
    if (presentBytes === 0 && !complete) return
    trim(holders, HOLDERS_PER_MODEL_MAX - 1)
    holders.set(peerId, { presentBytes, complete, at: this.#clock.monotonic() })
  }

  forgetPeer (peerId: string): void {
    for (const holders of this.#models.values()) holders.delete(peerId)
  }

  of (model: string): Array<{ peerId: string, presentBytes: number, complete: boolean }> {
    const since = this.#clock.monotonic() - HOLDER_KNOWN_MS
    return [...this.#models.get(model) ?? []]
      .filter(([, { at }]) => at >= since)
      .map(([peerId, { presentBytes, complete }]) => ({ peerId, presentBytes, complete }))
  }
}

/** Drops the oldest entries down to `length`. */
function trim (entries: Map<string, unknown>, length: number): void {
  for (const key of entries.keys()) {
    if (entries.size <= length) return
    entries.delete(key)
  }
}
