import { peerIdFromString } from '@libp2p/peer-id'
import { LOAD_PEERS_WAITING_MAX, PeerTimeoutError } from '../base/index.ts'
import type { Slot } from '../storage/slots.ts'
import { learnAddresses } from './dial.ts'
import { FetchPeer, isViolation, type FetchPeerComponents, type FetchPeerInit } from './fetch-peer.ts'
import type { Holders, PeerRecords } from './peer-records.ts'
import type { InventoryPeer } from './messages.ts'
import type { SchedulerAction } from './scheduler.ts'
import { Turns } from './turns.ts'

export interface FetchPeersComponents extends FetchPeerComponents { records: PeerRecords, holders: Holders }
export interface FetchPeersInit extends FetchPeerInit { peersMax: number }

export interface FetchPeersHooks {
  changed: () => void
  received: (bytes: number) => void
  verified: (block: number, slot: Slot) => void
  wasted: (bytes: number) => void
  otherSize: (block: number, size: number) => void
  left: (peerId: string, reason: string) => void
  violation: (peerId: string, reason: string) => void
}

/** A peer that went away is tried again after this, doubled with each time in a row, and so many times. */
const RETRY_MS = 1_000
const RETRIES_MAX = 6
/** One that delivered before it went away, instead: a lane was cut, or a connection. */
const RETRY_SOON_MS = 100
/** While others wait for a place: one that gave nothing for this long makes room, and is tried again after as long. */
const USELESS_MS = 10_000
/** Two that have found each other do not both dial: the one with the lesser id waits so long to be called, the other twice as long. */
const CALL_MS = 2_000
/** Delivered within this time: active. */
const ACTIVE_MS = 3_000

/** The peers of one fetch: at most `peersMax` at once, the others in a bounded waiting line. */
export class FetchPeers {
  readonly #components: FetchPeersComponents
  readonly #init: FetchPeersInit
  readonly #hooks: FetchPeersHooks
  readonly #peers = new Map<string, FetchPeer>()
  readonly #byHandle = new Map<number, FetchPeer>()
  /** When each may be tried (again), in monotonic milliseconds. */
  readonly #waiting = new Map<string, number>()
  /** Those that will probably call, and when they are dialled if they have not. */
  readonly #expected = new Map<string, number>()
  readonly #turns = new Turns()
  readonly #tries = new Map<string, number>()
  /** Went away before: what they may turn out to have nobody waits for. */
  readonly #failed = new Set<string>()
  /** Bytes by peer of those that are gone. */
  readonly #delivered = new Map<string, number>()
  #stopped = false

  constructor (components: FetchPeersComponents, init: FetchPeersInit, hooks: FetchPeersHooks) {
    this.#components = components
    this.#init = init
    this.#hooks = hooks
  }

  /** Peers that have told what they have of it, and can be asked for it. */
  get ready (): number {
    let ready = 0
    for (const peer of this.#peers.values()) if (peer.ready) ready++
    return ready
  }

  /** Some peer may still turn out to have something. */
  get opening (): boolean {
    for (const peer of this.#peers.values()) if (!peer.ready && (peer.leasing || peer.inventory?.told !== true) && !this.#failed.has(peer.peerId)) return true
    return false
  }

  /** Peers that delivered lately. */
  active (now: number): number {
    let active = 0
    for (const peer of this.#peers.values()) if (peer.bytes > 0 && now - peer.activeAt < ACTIVE_MS) active++
    return active
  }

  delivered (): Record<string, number> {
    const delivered = new Map(this.#delivered)
    for (const { peerId, bytes } of this.#peers.values()) if (bytes > 0) delivered.set(peerId, (delivered.get(peerId) ?? 0) + bytes)
    return Object.fromEntries(delivered)
  }

  add (peerId: string): void {
    this.#expected.delete(peerId)
    if (this.#stopped || this.#peers.has(peerId) || this.#components.records.isBanned(peerId)) return
    this.#tries.delete(peerId)
    const now = this.#components.clock.monotonic()
    if (this.#waiting.has(peerId) || this.#peers.size >= this.#init.peersMax) this.#wait(peerId, this.#waiting.get(peerId) ?? now)
    else this.#start(peerId)
  }

  expect (peerId: string): void {
    const { network, clock } = this.#components
    if (this.#stopped || this.#peers.has(peerId) || this.#waiting.has(peerId) || this.#expected.has(peerId)) return
    if (network.getConnections(peerIdFromString(peerId)).length > 0 || this.#expected.size >= LOAD_PEERS_WAITING_MAX) { this.add(peerId); return }
    this.#expected.set(peerId, clock.monotonic() + (network.peerId.toString() < peerId ? CALL_MS : 2 * CALL_MS))
  }

  act (actions: SchedulerAction[]): void {
    for (const action of actions) {
      const peer = this.#byHandle.get(action.peer)
      if (action.type === 'request') peer?.request(action.block)
      else if (action.type === 'cancel') peer?.cancel(action.block)
      else if (peer !== undefined) this.#timedOut(peer)
    }
  }

  /** Takes note of what only time tells, and tries whoever waits. */
  tick (now: number): void {
    const { scheduler, model } = this.#init
    for (const peer of this.#peers.values()) {
      const { handle, link, inventory } = peer
      if (inventory !== undefined) this.#components.holders.note(model.cid, peer.peerId, inventory.presentBytes, inventory.complete)
      if (handle === undefined || link === undefined) continue
      peer.readmit(now)
      scheduler.setScore(handle, peer.record.score.value(now))
      if (peer.held) scheduler.deaf(handle, now)
      else scheduler.heard(handle, peer.heardAt)
    }
    for (const [peerId, at] of this.#expected) if (at <= now) this.add(peerId)
    if (this.#waiting.size === 0) return
    if (this.#peers.size >= this.#init.peersMax) this.#makeRoom(now)
    for (const [peerId, at] of this.#waiting) {
      if (this.#peers.size >= this.#init.peersMax) break
      if (at <= now) this.#start(peerId)
    }
  }

  /** For a peer that was banned. */
  drop (peerId: string, reason: string): void {
    this.#waiting.delete(peerId)
    this.#expected.delete(peerId)
    const peer = this.#peers.get(peerId)
    if (peer !== undefined) this.#let(peer, reason)
  }

  stop (): void {
    this.#stopped = true
    this.#waiting.clear()
    this.#expected.clear()
    const now = this.#components.clock.monotonic()
    this.tick(now) // the last word on who has what
    for (const peer of this.#peers.values()) peer.close()
    for (const { peerId, bytes } of this.#peers.values()) this.#remember(peerId, bytes)
    this.#peers.clear()
    this.#byHandle.clear()
  }

  #start (peerId: string): void {
    this.#waiting.delete(peerId)
    this.#turns.seated(peerId, this.#components.clock.monotonic())
    const peer = new FetchPeer(peerId, this.#components.records.get(peerId), this.#components, this.#init, {
      changed: () => {
        if (peer.handle !== undefined) this.#byHandle.set(peer.handle, peer)
        this.#hooks.changed()
      },
      received: this.#hooks.received,
      verified: (block, slot) => {
        // It left while its last block was checked.
        if (this.#peers.get(peerId) !== peer) this.#remember(peerId, this.#init.map.place(block).size)
        this.#hooks.verified(block, slot)
      },
      wasted: this.#hooks.wasted,
      otherSize: this.#hooks.otherSize,
      introduced: peers => { this.#introduced(peers) },
      left: error => { this.#left(peer, error) }
    })
    this.#peers.set(peerId, peer)
  }

  /** Hints from a peer: each is tried like any other, over the addresses given or what is known of it. */
  #introduced (peers: InventoryPeer[]): void {
    const { network } = this.#components
    for (const { id, addresses } of peers) {
      if (this.#stopped || this.#waiting.size >= LOAD_PEERS_WAITING_MAX) return
      if (id === network.peerId.toString() || this.#peers.has(id) || this.#waiting.has(id)) continue
      learnAddresses(network, id, addresses).then(() => { this.add(id) }, () => undefined) // a hint that makes no sense is none
    }
  }

  #left (peer: FetchPeer, error: Error): void {
    const { peerId, record } = peer
    this.#forget(peer)
    if (isViolation(error)) {
      this.#hooks.left(peerId, error.message)
      this.#hooks.violation(peerId, error.message)
      return
    }
    const now = this.#components.clock.monotonic()
    record.score.fault('gone', now)
    // It was of use until now: only its way to us ended.
    const delivered = peer.bytes > 0
    const tries = delivered ? 1 : (this.#tries.get(peerId) ?? 0) + 1
    if (tries > RETRIES_MAX) this.#tries.delete(peerId)
    else this.#tries.set(peerId, tries)
    if (this.#failed.size >= LOAD_PEERS_WAITING_MAX) this.#failed.clear()
    this.#failed.add(peerId)
    if (tries <= RETRIES_MAX && !this.#components.records.isBanned(peerId)) this.#wait(peerId, now + (delivered ? RETRY_SOON_MS : RETRY_MS * 2 ** (tries - 1)))
    this.#hooks.left(peerId, error.message)
    this.#hooks.changed()
  }

  /** The scheduler has given it up already. */
  #timedOut (peer: FetchPeer): void {
    const { clock, links } = this.#components
    const { peerId, record } = peer
    const now = clock.monotonic()
    const since = now - this.#init.requestTimeoutMs
    if (record.servedAt > since) {
      // It sends what another fetch asked for, which goes first if somebody waits for that and nobody for this.
      this.#let(peer, 'it sends to another load of this node, and nothing to this one')
      this.#wait(peerId, now + USELESS_MS)
      return
    }
    record.score.fault('timeout', now)
    const error = new PeerTimeoutError(`${peerId} owed bytes and sent none of them for ${this.#init.requestTimeoutMs} ms`)
    if (peer.heardAt > since) peer.giveUp(error)
    else links.drop(peerId, error) // its stream is stuck for whoever else uses it, too; told back through left()
  }

  #makeRoom (now: number): void {
    const anyReady = [...this.#waiting.values()].some(at => at <= now)
    if (!anyReady) return
    for (const peer of this.#peers.values()) {
      if (now - peer.activeAt < USELESS_MS) continue
      this.#let(peer, 'it had nothing for this load, and others wait for its place')
      this.#wait(peer.peerId, now + USELESS_MS)
      return
    }
    if (this.#turns.due(now)) this.#takeTurns(now)
  }

  #takeTurns (now: number): void {
    const waiting = Array.from(this.#waiting).filter(([, at]) => at <= now).map(([peerId]) => peerId)
    // Whom this side does not listen to could be faster than it looks.
    const change = this.#turns.next([...this.#peers.values()].filter(({ held }) => !held), waiting, now)
    const slow = change === undefined ? undefined : this.#peers.get(change.out)
    if (change === undefined || slow === undefined) return
    this.#let(slow, 'it is slow, and another that waits is tried in its place')
    this.#start(change.in)
    this.#wait(slow.peerId, now + USELESS_MS)
  }

  /** Lets a peer go from this side. */
  #let (peer: FetchPeer, reason: string): void {
    peer.close()
    this.#forget(peer)
    this.#hooks.left(peer.peerId, reason)
    this.#hooks.changed()
  }

  #wait (peerId: string, at: number): void {
    if (this.#stopped || (this.#waiting.size >= LOAD_PEERS_WAITING_MAX && !this.#waiting.has(peerId))) return
    this.#waiting.set(peerId, at)
  }

  #forget (peer: FetchPeer): void {
    if (this.#peers.get(peer.peerId) === peer) {
      this.#peers.delete(peer.peerId)
      this.#turns.left(peer.peerId)
    }
    for (const [handle, known] of this.#byHandle) if (known === peer) this.#byHandle.delete(handle)
    this.#remember(peer.peerId, peer.bytes)
  }

  #remember (peerId: string, bytes: number): void {
    if (bytes > 0) this.#delivered.set(peerId, (this.#delivered.get(peerId) ?? 0) + bytes)
  }
}
