import { HOLDERS_PER_MODEL_MAX, HOLDER_MODELS_MAX, PEERS_TRACKED_MAX, type Clock } from '../base/index.ts'
import { PeerScore } from './peer-score.ts'
import { RateMeter } from './rate.ts'
import type { PeerTransferStatus, TransportKind } from './types.ts'

export interface PeerRecord {
  readonly received: RateMeter
  readonly sent: RateMeter
  readonly score: PeerScore
  /** Block after block that the peer took back in the middle, by its own word: see `withdrew`. */
  withdrawnAt: number[]
  /** When bytes last came that some fetch had asked for. */
  servedAt: number
  usedAt: number
  transport: TransportKind | undefined
}

/** The third block that a peer says it lacks after it sent some of it, within so long, is a lie: a drive does not fail so often in the middle of what it reads. */
const WITHDRAWALS_MAX = 3
const WITHDRAWALS_MS = 3_600_000

/** The peer sent bytes of a block and then said that it is not here. Says whether it did so too often. */
export function withdrew (record: PeerRecord, now: number): boolean {
  record.withdrawnAt = [...record.withdrawnAt.filter(at => now - at < WITHDRAWALS_MS), now]
  if (record.withdrawnAt.length < WITHDRAWALS_MAX) return false
  record.withdrawnAt = []
  return true
}

interface Ban { record: PeerRecord, reason: string, times: number, until: number }

/**
 * Wrong bytes are mostly a drive that rots, which its owner mends; a liar costs a block in that time. Each further ban of a peer lasts
 * four times as long as the one before.
 */
const BAN_MS = 3_600_000
const BAN_FACTOR = 4
const BAN_MS_MAX = 7 * 24 * 3_600_000

/** Use is noted this often: for each piece it would churn the map, whose every rebuild is garbage that lives long. */
const USE_NOTED_MS = 1_000

/** What is remembered of every peer that bytes went to or came from. Bounded; the longest unused are forgotten first, banned ones last. */
export class PeerRecords {
  readonly #clock: Clock
  /** In order of last use. */
  readonly #records = new Map<string, PeerRecord>()
  /** Also those whose ban is over: the next one is longer. In order of the last ban. */
  readonly #bans = new Map<string, Ban>()

  constructor (clock: Clock) { this.#clock = clock }

  get (peerId: string): PeerRecord {
    const ban = this.#bans.get(peerId)
    if (ban !== undefined) return ban.record
    const now = this.#clock.monotonic()
    let record = this.#records.get(peerId)
    if (record === undefined) {
      record = { received: new RateMeter(now), sent: new RateMeter(now), score: new PeerScore(now), withdrawnAt: [], servedAt: -Infinity, usedAt: now, transport: undefined }
      trim(this.#records, PEERS_TRACKED_MAX - 1)
    } else {
      if (now - record.usedAt < USE_NOTED_MS) return record
      record.usedAt = now
      this.#records.delete(peerId)
    }
    this.#records.set(peerId, record)
    return record
  }

  isBanned (peerId: string): boolean {
    const ban = this.#bans.get(peerId)
    return ban !== undefined && this.#clock.monotonic() < ban.until
  }

  ban (peerId: string, reason: string): void {
    const record = this.get(peerId)
    const times = (this.#bans.get(peerId)?.times ?? 0) + 1
    this.#records.delete(peerId)
    this.#bans.delete(peerId)
    trim(this.#bans, PEERS_TRACKED_MAX - 1)
    this.#bans.set(peerId, { record, reason, times, until: this.#clock.monotonic() + Math.min(BAN_MS_MAX, BAN_MS * BAN_FACTOR ** (times - 1)) })
  }

  status (): PeerTransferStatus[] {
    const now = this.#clock.monotonic()
    const all: Array<[string, PeerRecord, Ban?]> = [...this.#records, ...Array.from(this.#bans, ([peerId, ban]): [string, PeerRecord, Ban] => [peerId, ban.record, ban])]
    return all.map(([peerId, { received, sent, score, transport }, ban]) => {
      const banned = ban !== undefined && now < ban.until
      return {
        peerId,
        transport,
        receiveRate: received.rate(now),
        sendRate: sent.rate(now),
        receivedBytes: received.total,
        sentBytes: sent.total,
        score: banned ? 0 : score.value(now),
        banned,
        ...banned ? { banReason: ban.reason, banSecondsLeft: (ban.until - now) / 1_000 } : { banReason: undefined, banSecondsLeft: undefined }
      }
    })
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
