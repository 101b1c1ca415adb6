import { nameHash } from './rendezvous.ts'
import type { ModelView } from './model-view.ts'
import type { Said } from './states.ts'
import type { Liveness, ReplicationSettings } from './types.ts'

/** What this node knows about another, whatever models they share. */
export class Peer {
  readonly id: string
  readonly hash: number
  liveness: Liveness = 'alive'
  /** When it was last heard, or first of interest. */
  heardAt: number
  /** It was heard since it is of interest, and not only spoken of. */
  isHeard = false
  /** Since when it has been down. */
  downAt = 0
  /** Since when it has been alive without a break, if there was one. */
  aliveSince = -Infinity
  incarnation = ''
  /** Former ones, and when the next one was heard, so that what was said then and comes late is not taken for a new life. */
  readonly former = new Map<string, number>()
  /** The newest of its states of which something came, the parts of it that came, and the newest that came whole. */
  version = 0
  readonly parts = new Set<number>()
  partsOf = 1
  wholeVersion = 0
  /** When a state of it last came whole. */
  wholeAt = -Infinity
  /** When it was last looked what it had nothing to say of. */
  siftedAt = -Infinity
  freeBytes = 0
  draining = false
  /**
   * It said that it stops and means to come back; until its next life says something. What of it comes late is no sign of life: who forgot the
   * goodbye for that would not wait for the return.
   */
  leaving = false
  /** When it said so. */
  leftAt = 0
  /** When its last state came; undefined: never. */
  stateAt: number | undefined
  /** The newest of our states that it has. */
  ackVersion = 0
  ackedAt = -Infinity
  /** An older one was said to it before its present life; Infinity: nothing has been said to it in that. */
  ackFrom = Infinity
  /** The models of which it has to be told, and as of which version of our states. */
  readonly owed = new Map<ModelView, number>()
  /** Those that the next of our states names beside these. */
  readonly spokenOf = new Set<ModelView>()
  /** How many models it shares with this node, and when it was last told of so many at once. */
  shared = 0
  refreshedAt = -Infinity
  /** The one of our states that goes to it in parts, until it has acknowledged it, and what of it is still to be sent. */
  round: { version: number, of: number, left: Map<number, Said[]>, asks: boolean } | undefined
  sentAt = -Infinity
  /** States sent since the last answer. */
  tries = 0
  wantsReply = false
  /** For all that this node shares with it. */
  asksForAll = false
  /** Models it spoke of that this node knows nothing of, and how many shards they have: it is told so, once. */
  readonly unknown = new Map<string, number>()
  /** No offers to it before then. */
  busyUntil = 0
  /** Offers in a row of which nothing came, and until when it gets none but of last copies. */
  offersFailed = 0
  failingUntil = -Infinity
  /** What others say of it while it is silent: when it was said, and how long they had not heard of it. */
  readonly said = new Map<string, { at: number, ageMs: number }>()
  /** Those that were asked about it, and when. */
  readonly asked = new Map<string, number>()
  askedAt = -Infinity

  /** When it was last asked for its state as a candidate. */
  probedAt = -Infinity
  #labels: Record<string, string> = {}
  #domains: readonly string[]

  constructor (id: string, now: number) {
    this.id = id
    this.hash = nameHash(id)
    this.heardAt = now
    this.#domains = domainsOf(this.#labels, id)
  }

  /** It may have started anew: nothing of what it was told counts. */
  knowsNothing (): void {
    this.ackVersion = 0
    this.ackFrom = Infinity
    this.owed.clear()
    this.round = undefined
  }

  get labels (): Record<string, string> { return this.#labels }
  set labels (labels: Record<string, string>) {
    this.#labels = labels
    this.#domains = domainsOf(labels, this.id)
  }

  /** Where it is: its zone, rack and host, each with what it lies in. */
  get domains (): readonly string[] { return this.#domains }
}

/** The failure domains, widest first: labels of a node (docs/REPLICATION.md says what they are for). */
export const DOMAIN_LEVELS = ['zone', 'rack', 'host'] as const

/** Who says nothing of its host is one of its own; of its zone or rack, in the nameless one. */
function domainsOf (labels: Record<string, string>, id: string): string[] {
  const [zone = '', rack = '', host = ''] = DOMAIN_LEVELS.map(level => labels[level])
  return [zone, `${zone}/${rack}`, `${zone}/${rack}/${host === '' ? `-${id}` : host}`]
}

/** An observer's word about a silent peer counts for this long. */
const SAID_TTL_MS = 15_000
const ASK_EVERY_MS = 5_000
/** Of who is down: often enough before anybody acts on it, then ever more rarely, as a share of the time since. */
const ASK_DOWN_EVERY_MS = 30_000
const ASK_DOWN_SHARE = 1 / 20
const OBSERVERS_ASKED = 3
/** Others are up but nobody knows the silent peer: then this node's own word has to do, a little later. */
const ALONE_EXTRA_MS = 10_000
/** Fewer lost at once are no partition, however small the swarm (docs/decisions/0006-replication.md). */
const BRAKE_LOST_MIN = 3

export interface PeerTableHooks {
  heardAt: (peerId: string) => number | undefined
  ask: (observer: string, about: string) => void
  changed: (peer: Peer, from: Liveness) => void
  brake: (on: boolean) => void
}

/**
 * Who is up. Per peer, not per shard: alive, suspect after a while of silence, down when others who know the peer do not
 * hear it either. And the brake: many gone at once looks like a cut network, in which the others are fine.
 */
export class PeerTable {
  readonly peers = new Map<string, Peer>()
  readonly #settings: ReplicationSettings
  readonly #hooks: PeerTableHooks
  #brakeSince: number | undefined
  #brakeOffAt = -Infinity
  /** Those that went while it was pulled, or pulled it. */
  readonly #braked = new Set<Peer>()
  /** The brake was released by time: these losses are believed. */
  readonly #believed = new Set<Peer>()

  constructor (settings: ReplicationSettings, hooks: PeerTableHooks) {
    this.#settings = settings
    this.#hooks = hooks
  }

  get brake (): boolean { return this.#brakeSince !== undefined }
  /** When it was last released; before that nobody did what was due. */
  get brakeOffAt (): number { return this.#brakeOffAt }

  get (id: string): Peer | undefined { return this.peers.get(id) }

  /** One that is not tracked. */
  make (id: string, now: number): Peer { return new Peer(id, now) }

  /** From now on; `known` is what was known of it as a stranger. */
  track (id: string, now: number, known?: Peer): Peer {
    let peer = this.peers.get(id)
    if (peer === undefined) {
      peer = known ?? new Peer(id, now)
      peer.heardAt = now
      peer.isHeard = false
      this.peers.set(id, peer)
    }
    return peer
  }

  forget (id: string): void {
    const peer = this.peers.get(id)
    if (peer === undefined) return
    this.peers.delete(id)
    this.#braked.delete(peer)
    this.#believed.delete(peer)
  }

  seen (observer: string, about: string, ageMs: number, now: number): void {
    const peer = this.peers.get(about)
    const askedAt = peer?.asked.get(observer)
    // Who was not asked, or answers twice, may say it of anybody at any time.
    if (peer === undefined || askedAt === undefined || now - askedAt > SAID_TTL_MS) return
    peer.asked.delete(observer)
    peer.said.set(observer, { at: now, ageMs })
  }

  poll (now: number): void {
    let changed = false
    for (const peer of this.peers.values()) {
      const heard = this.#hooks.heardAt(peer.id)
      if (heard !== undefined && heard >= peer.heardAt) { peer.heardAt = heard; peer.isHeard = true }
      const age = now - peer.heardAt
      if (age < this.#settings.suspectMs) {
        if (peer.liveness !== 'alive') { this.#turn(peer, 'alive', now); changed = true }
      } else if (peer.liveness !== 'down') {
        if (peer.liveness === 'alive') { this.#turn(peer, 'suspect', now); changed = true }
        if (this.#isDown(peer, age, now)) { this.#turn(peer, 'down', now); changed = true }
      } else if (this.#isBack(peer, now)) {
        peer.leaving = false
        this.#turn(peer, 'suspect', now)
        changed = true
      }
    }
    if (changed || this.#brakeSince !== undefined) this.#updateBrake(now)
  }

  #turn (peer: Peer, to: Liveness, now: number): void {
    const from = peer.liveness
    peer.liveness = to
    if (to === 'down') peer.downAt = now
    if (to === 'alive') {
      peer.aliveSince = now
      peer.said.clear()
      peer.tries = 0
    }
    if (from === 'down') {
      // It may have started anew meanwhile: both tell each other where they stand.
      peer.stateAt = undefined
      peer.knowsNothing()
      this.#believed.delete(peer)
    }
    this.#hooks.changed(peer, from)
  }

  #isDown (peer: Peer, age: number, now: number): boolean {
    const { suspectMs, downMs } = this.#settings
    // It said goodbye: no need to ask around.
    if (peer.leaving) return age >= downMs
    if (this.#askAround(peer, ASK_EVERY_MS, now) === 0 && age >= downMs) return true
    if (age < downMs) return false
    let agreed = false
    for (const [observer, { at, ageMs }] of peer.said) {
      if (now - at > SAID_TTL_MS) { peer.said.delete(observer); continue }
      if (ageMs + (now - at) < suspectMs) return false
      agreed = true
    }
    return agreed || age >= downMs + ALONE_EXTRA_MS
  }

  /** Others hear it again, and a cut keeps it from this node: that is no death, as it would not have been one before. */
  #isBack (peer: Peer, now: number): boolean {
    this.#askAround(peer, Math.max(ASK_DOWN_EVERY_MS, (now - peer.downAt) * ASK_DOWN_SHARE), now)
    for (const { at, ageMs } of peer.said.values()) {
      const unheardMs = ageMs + (now - at)
      if (now - at <= SAID_TTL_MS && unheardMs < this.#settings.suspectMs && now - unheardMs > peer.downAt) return true
    }
    return false
  }

  /** How many were asked about it; undefined: it is not time. */
  #askAround (peer: Peer, everyMs: number, now: number): number | undefined {
    if (now - peer.askedAt < everyMs) return undefined
    peer.askedAt = now
    for (const [observer, at] of peer.asked) if (now - at > SAID_TTL_MS) peer.asked.delete(observer)
    for (const [observer, { at }] of peer.said) if (now - at > SAID_TTL_MS) peer.said.delete(observer)
    let observers = 0
    for (const other of this.peers.values()) {
      if (observers >= OBSERVERS_ASKED) break
      if (other === peer || other.liveness !== 'alive' || other.stateAt === undefined) continue
      peer.asked.set(other.id, now)
      this.#hooks.ask(other.id, peer.id)
      observers++
    }
    return observers
  }

  #updateBrake (now: number): void {
    const { brakeMaxMs } = this.#settings
    if (this.#brakeSince === undefined) {
      const lost = this.#lostAtOnce(now)
      if (lost.length === 0) return
      for (const peer of lost) this.#braked.add(peer)
      this.#brakeSince = now
      this.#hooks.brake(true)
      return
    }
    for (const peer of this.#lostAtOnce(now)) this.#braked.add(peer)
    for (const peer of this.#braked) if (peer.liveness !== 'down') this.#braked.delete(peer)
    const timedOut = now - this.#brakeSince >= brakeMaxMs
    if (this.#braked.size > 0 && !timedOut) return
    for (const peer of this.#braked) this.#believed.add(peer)
    this.#braked.clear()
    this.#brakeSince = undefined
    this.#brakeOffAt = now
    this.#hooks.brake(false)
  }

  /**
   * The peers that went down within the window, if that is too many or all of a domain. Who was never heard has gone nowhere: it is a name, made up
   * or of one that has been gone for hours, and of those a newcomer is told many at once.
   */
  #lostAtOnce (now: number): Peer[] {
    const { brakeShare, brakeWindowMs } = this.#settings
    const lost: Peer[] = []
    let known = 0
    for (const peer of this.peers.values()) {
      if (!peer.isHeard) continue
      if (peer.liveness !== 'down') known++
      else if (now - peer.downAt <= brakeWindowMs && !peer.leaving && !this.#believed.has(peer)) { known++; lost.push(peer) }
    }
    if (lost.length >= BRAKE_LOST_MIN && lost.length > brakeShare * known) return lost
    for (const level of ['zone', 'rack']) {
      const gone = new Map<string, number>()
      for (const peer of lost) gone.set(peer.labels[level] ?? '', (gone.get(peer.labels[level] ?? '') ?? 0) + 1)
      for (const [domain, count] of gone) {
        if (domain === '' || count < 2) continue
        let others = 0
        let left = 0
        for (const peer of this.peers.values()) {
          if (peer.liveness === 'down' || !peer.isHeard) continue
          if (peer.labels[level] === domain) left++
          else others++
        }
        if (left === 0 && others > 0) return lost.filter(peer => peer.labels[level] === domain)
      }
    }
    return []
  }
}
