import { LOAD_BYTES_IN_FLIGHT_MAX, type Random } from '../base/index.ts'
import { Assignments } from './assignments.ts'
import { BlockStates } from './block-states.ts'
import { ASSUMED_RATE, betterLeft, doubted, isHopeless, isYoung, mayRelieve, mostRelieved, ranking, WAIT_MS_MAX, type Company } from './relief.ts'
import { SchedulerPeer, type Assignment } from './scheduler-peer.ts'

export type SchedulerAction =
  | { type: 'request', peer: number, block: number }
  /** The request is of no use any more; what still comes of it is waste. */
  | { type: 'cancel', peer: number, block: number }
  /** The peer owes bytes and has sent none for too long, or none of what it owes for longer still: its blocks are free again and it is removed. */
  | { type: 'timeout', peer: number }

export interface SchedulerInit {
  /** Bytes of each block. */
  sizes: Uint32Array
  order: 'rarest' | 'sequential'
  random: Random
  /** This node, as the other loaders hash it (see `addPeer`). */
  self: number
  requestTimeoutMs: number
}

const NONE = -1
const LEFT_TO_OTHERS = -2
/** Neighbours asked of one peer in a row: 64 MiB, a run that any disk likes and the unit in which a store syncs. */
const RUN_BLOCKS = 16

/** A block that takes longer than this from a peer is slow to come: others may be sooner. */
const SLOW_BLOCK_MS = 500
/** Of the urgent blocks, how many at the front are looked after one by one. */
const URGENT_WATCHED = 16
/** Where all are slow, and there is no more to do than that, who crawls is as good as the others: sixteen that load together on a full host fetched 8 % twice instead of 5. */
const GIVE_UP_BEFORE_MS = 10_000
/** Between two times that what is asked for is taken back in favour of what is urgent: cancels are not free either. */
const PREEMPT_MS = 250

/**
 * Decides which block to ask which peer for. Pure: it is told what happened and when, and answers with actions; it does
 * no I/O and knows no clock. Blocks and peers are small numbers.
 *
 * A wanted block is free, busy (asked for from one peer, from up to four when they are too slow) or here. The order of
 * choice: urgent ranges, then rarest first (or in order); relief.ts says when a block changes peers.
 */
export class Scheduler {
  readonly #init: SchedulerInit
  readonly #blocks: BlockStates
  readonly #assignments = new Assignments()
  readonly #peers = new Map<number, SchedulerPeer>()
  /** Blocks that somebody waits for, in that order, and how many do. */
  readonly #urgent = new Map<number, number>()
  /** Peers that have every block. */
  #fullPeers = 0
  #preempt = false
  #preemptedAt = -Infinity
  #nextPeer = 1
  #turn = 0
  /** Blocks that changed peers in this plan: once is enough, else two peers could hand them to and fro for ever. */
  readonly #moved = new Set<number>()
  #plannedAt = -Infinity
  #out: SchedulerAction[] = []

  constructor (init: SchedulerInit) {
    this.#init = init
    this.#blocks = new BlockStates(init.sizes, init.random)
  }

  /** Wanted blocks that are not here. */
  get missing (): number { return this.#blocks.missing }
  /** Blocks that are asked for now. */
  get busy (): number { return this.#assignments.size }
  /** Nothing is on its way, and nobody known has any of what is missing. */
  get starved (): boolean { return this.missing > 0 && this.busy === 0 && this.#isEndgame }

  isHere (block: number): boolean { return this.#blocks.isHere(block) }

  /** Adds to what is wanted. */
  want (block: number): void { this.#blocks.want(block) }
  /** A block that was here no longer is. */
  lost (block: number): void { this.#blocks.lose(block) }

  /** The block is here, wherever from. */
  here (block: number): void {
    for (const assignment of this.#assignments.of(block)) this.#cancel(assignment)
    this.#urgent.delete(block)
    this.#blocks.makeHere(block)
  }

  /** Moves blocks to the front, in this order, behind those that are there already. Undone by as many calm() calls. */
  urge (blocks: Iterable<number>): void {
    for (const block of blocks) this.#urgent.set(block, (this.#urgent.get(block) ?? 0) + 1)
    this.#preempt = true
  }

  calm (blocks: Iterable<number>): void {
    for (const block of blocks) {
      const waiting = this.#urgent.get(block)
      if (waiting === undefined) continue
      if (waiting > 1) this.#urgent.set(block, waiting - 1)
      else this.#urgent.delete(block)
    }
  }

  /** `hash` is any 32-bit number that all nodes compute alike from the peer's id. */
  addPeer (hash: number, now: number): number {
    const id = this.#nextPeer++
    this.#peers.set(id, new SchedulerPeer(id, hash, this.#init.sizes.length, now))
    return id
  }

  removePeer (id: number): void {
    const peer = this.#peers.get(id)
    if (peer === undefined) return
    for (const assignment of peer.queue.slice()) this.#release(assignment)
    this.clearBlocks(id)
    this.#peers.delete(id)
  }

  /** The peer has every block. */
  fillBlocks (id: number): void {
    this.clearBlocks(id)
    const peer = this.#peers.get(id)
    if (peer === undefined) return
    peer.blocks.fill()
    this.#fullPeers++
  }

  clearBlocks (id: number): void {
    const peer = this.#peers.get(id)
    if (peer === undefined) return
    if (peer.blocks.filled) this.#fullPeers--
    else for (const block of peer.blocks) this.#blocks.free.change(block, -1)
    peer.blocks.clear()
  }

  setBlock (id: number, block: number, present: boolean): void {
    const peer = this.#peers.get(id)
    if (peer === undefined) return
    // Peers with everything are counted apart, so that one of them costs nothing, whatever the number of blocks.
    const wasFilled = peer.blocks.filled
    if (!peer.blocks.set(block, present)) return
    if (present) peer.gainedAt = Math.max(peer.gainedAt, this.#plannedAt)
    if (!wasFilled) { this.#blocks.free.change(block, present ? 1 : -1); return }
    this.#fullPeers--
    for (const other of peer.blocks) this.#blocks.free.change(other, 1)
  }

  setScore (id: number, score: number): void {
    const peer = this.#peers.get(id)
    if (peer !== undefined) peer.score = score
  }

  /** Something came from the peer, whoever asked for it. */
  heard (id: number, at: number): void {
    const peer = this.#peers.get(id)
    if (peer !== undefined) peer.heardAt = Math.max(peer.heardAt, at)
  }

  /** The peer could not be heard, because this side does not listen. */
  deaf (id: number, now: number): void { this.#peers.get(id)?.deaf(now) }

  /** The first of its bytes are about to come. */
  started (id: number, block: number, now: number): void {
    const assignment = this.#peers.get(id)?.find(block)
    if (assignment === undefined) return
    assignment.startedAt ??= now
    assignment.peer.heardAt = now
    assignment.peer.idleSince = now
  }

  received (id: number, block: number, bytes: number, now: number): void {
    const assignment = this.#peers.get(id)?.find(block)
    if (assignment === undefined) return
    this.#assignments.receive(assignment, bytes, now)
  }

  /** The block came in full and is what it should be. Whoever else was asked for it is cancelled by the next plan(). */
  completed (id: number, block: number): void {
    const peer = this.#peers.get(id)
    const assignment = peer?.find(block)
    if (peer === undefined || assignment === undefined) return
    this.#assignments.drop(assignment)
    peer.delivered(assignment.size)
    this.here(block)
  }

  /** It will not come from this peer. */
  failed (id: number, block: number): void {
    const assignment = this.#peers.get(id)?.find(block)
    if (assignment !== undefined) this.#release(assignment)
  }

  /** What to do now. The actions count as done. */
  plan (now: number): SchedulerAction[] {
    this.#moved.clear()
    this.#plannedAt = now
    for (const peer of this.#peers.values()) {
      if (peer.idle || (now - peer.heardAt <= this.#init.requestTimeoutMs && !peer.mute(now))) continue
      this.#out.push({ type: 'timeout', peer: peer.id })
      this.removePeer(peer.id)
    }
    if (this.missing > 0) {
      const peers = this.#inTurn()
      this.#giveUp(peers, now)
      if (this.#urgent.size > 0) this.#serveUrgent(peers, now)
      this.#fill(peers, now)
    }
    const actions = this.#out
    this.#out = []
    return actions
  }

  /** Each peer gets one block after the other until none has room or nothing is left; those left over help others. */
  #fill (peers: SchedulerPeer[], now: number): void {
    const isHurried = this.#urgent.size > 0 || this.#blocks.free.size === 0
    let left = peers.filter(peer => peer.blocks.count > 0 && (isHurried || peer.runsLow(now)))
    while (left.length > 0) {
      const next: SchedulerPeer[] = []
      for (const peer of left) {
        if (this.#assignments.owed >= LOAD_BYTES_IN_FLIGHT_MAX || !peer.hasRoom(now) || peer.stalled(now)) continue
        const block = this.#pick(peer, now)
        if (block >= 0) this.#assign(peer, block, now)
        if (block >= 0 || (block === NONE && this.#takeOver(peer, now))) next.push(peer)
      }
      left = next
    }
  }

  /** A free block for this peer; NONE, or LEFT_TO_OTHERS when there are some that it had better not be asked for now. */
  #pick (peer: SchedulerPeer, now: number): number {
    if (this.#blocks.free.size === 0) return NONE
    for (const block of this.#urgent.keys()) {
      if (this.#blocks.isFree(block) && peer.blocks.has(block) && !doubted(peer, block, this.#blocks.size(block), this.#company(now))) return block
    }
    const rank = this.#init.order === 'sequential' ? undefined : ranking(this.#peers.values(), this.#init.self, now)
    const rarest = this.#init.order === 'sequential' ? this.#blocks.free.first(peer.blocks) : this.#blocks.free.rarest(peer.blocks, rank)
    // With no other loader to be different from, runs of neighbours: both disks read and write on where they are.
    const block = rank === undefined && this.#continues(peer, rarest) ? peer.lastAsked + 1 : rarest
    if (block < 0) return NONE
    const size = this.#blocks.size(block)
    if (doubted(peer, block, size, this.#company(now))) return LEFT_TO_OTHERS
    // What another loader should take is left to it for as long as it may need, when it would be slow for us as well.
    if (rank !== undefined && peer.blocks.filled && rank(block) >= 1) {
      const blockMs = size / (peer.rate(now) ?? Infinity) * 1000
      if (blockMs > SLOW_BLOCK_MS && (!peer.idle || now - peer.idleSince < blockMs)) return LEFT_TO_OTHERS
    }
    return this.#isBetterLeft(peer, block, now) ? LEFT_TO_OTHERS : block
  }

  #isBetterLeft (peer: SchedulerPeer, block: number, now: number): boolean {
    return betterLeft(peer, block, this.#blocks.size(block), { peers: this.#peers.values(), endMs: this.#endMs(now), now })
  }

  /** The block after the one last asked of this peer is as good as this one. */
  #continues (peer: SchedulerPeer, rarest: number): boolean {
    const { free } = this.#blocks
    const next = peer.lastAsked + 1
    return rarest >= 0 && next % RUN_BLOCKS !== 0 && this.#blocks.isFree(next) && peer.blocks.has(next) && free.holders(next) <= free.holders(rarest)
  }

  #company (now: number): Company { return { peers: this.#peers.values(), now } }

  /** Milliseconds until everything is here if all go on as they do. */
  #endMs (now: number): number {
    let rate = 0
    for (const peer of this.#peers.values()) if (!peer.stalled(now)) rate += peer.rate(now) ?? 0
    return rate > 0 ? (this.#blocks.freeBytes + this.#assignments.owed) / rate * 1000 : 0
  }

  /** A peer with room for which nothing is free relieves a much slower one. Says whether it did. */
  #takeOver (peer: SchedulerPeer, now: number): boolean {
    const isProven = peer.rate(now) !== undefined
    const mayHelp = ({ block }: Assignment): boolean => peer.blocks.has(block) && !this.#moved.has(block) &&
      this.#assignments.needsHelp(block, now, isProven) && mayRelieve(peer, block, this.#blocks.size(block), this.#company(now))
    // Of each queue what comes last gains most.
    const last = [...this.#peers.values()].flatMap(other => other.queue.findLast(mayHelp) ?? [])
    const found = mostRelieved(last, peer, now)
    if (found === undefined || this.#isBetterLeft(peer, found.block, now)) return false
    if (!found.peer.begun(found, now)) { this.#move(found, peer, now); return true }
    if (!peer.idle || !this.#isEndgame || !this.#mayDuplicate(found, peer, now)) return false
    this.#assign(peer, found.block, now)
    return true
  }

  /** Lets others begin anew what would be the last to come, while little of it is here: at the end more would be thrown away. Near the end the endgame decides. */
  #giveUp (peers: SchedulerPeer[], now: number): void {
    for (const peer of peers) {
      const [current] = peer.queue
      if (current === undefined || !isYoung(current, now) || this.#assignments.of(current.block).length > 1) continue
      const endMs = this.#endMs(now)
      if (endMs < GIVE_UP_BEFORE_MS) return
      if (!isHopeless(current, { peers, endMs, now })) continue
      if (this.#assignments.mayWaste(current.received, WAIT_MS_MAX, this.#blocks.wantedBytes)) this.#takeBack(current)
    }
  }

  /** Nothing is free that anybody has. */
  get #isEndgame (): boolean { return this.#blocks.free.size === 0 || (this.#fullPeers === 0 && this.#blocks.free.held === 0) }

  /** Fetching it twice must be worth it: the first is stalled, or the bytes that will be thrown away are within bounds. */
  #mayDuplicate (assignment: Assignment, by: SchedulerPeer, now: number): boolean {
    const { peer, size, received } = assignment
    if (peer.stalled(now)) return true
    const byMs = by.etaMs(size, now, ASSUMED_RATE)
    const waste = Math.min(size, received + (peer.rate(now) ?? 0) * byMs / 1000)
    return this.#assignments.mayWaste(waste, peer.etaOfMs(peer.queue.indexOf(assignment), now, 0) - byMs, this.#blocks.wantedBytes)
  }

  /** Makes way for what somebody waits for: at once when it is new, and when it sits with a slow peer. */
  #serveUrgent (peers: SchedulerPeer[], now: number): void {
    const blocks: number[] = []
    for (const block of this.#urgent.keys()) {
      if ((this.#blocks.isFree(block) || this.#blocks.isBusy(block)) && blocks.push(block) === URGENT_WATCHED) break
    }
    const free = blocks.filter(block => this.#blocks.isFree(block))
    if (this.#preempt && now - this.#preemptedAt >= PREEMPT_MS) {
      this.#preempt = false
      this.#preemptedAt = now
      // What is asked for and has not begun can wait: it is asked for again behind what is urgent.
      for (const peer of peers) {
        const behind = free.some(block => peer.blocks.has(block)) ? peer.queue.length : peer.queue.findLastIndex(queued => this.#urgent.has(queued.block))
        for (const assignment of peer.queue.slice(0, Math.max(0, behind)).filter(queued => queued.startedAt === undefined && !this.#urgent.has(queued.block))) this.#takeBack(assignment)
      }
    }
    for (const block of blocks) {
      const [assignment] = this.#assignments.of(block)
      if (assignment === undefined || !this.#assignments.needsHelp(block, now)) continue
      const relief = peers.find(peer => peer.blocks.has(block) && !peer.stalled(now) && peer.hasRoom(now) && mayRelieve(peer, block, this.#blocks.size(block), { peers, now }) && mostRelieved([assignment], peer, now) !== undefined)
      if (relief === undefined) continue
      if (!assignment.peer.begun(assignment, now)) this.#move(assignment, relief, now)
      else if (this.#mayDuplicate(assignment, relief, now)) this.#assign(relief, block, now)
      else if (assignment.startedAt === undefined) this.#move(assignment, relief, now) // perhaps in vain, and somebody waits
      else continue
      this.#preempt = true // whoever takes it over has others before it
    }
  }

  #move (assignment: Assignment, to: SchedulerPeer, now: number): void {
    this.#moved.add(assignment.block)
    this.#takeBack(assignment)
    this.#assign(to, assignment.block, now)
  }

  #takeBack (assignment: Assignment): void {
    this.#cancel(assignment)
    this.#free(assignment.block)
  }

  #cancel (assignment: Assignment): void {
    const stalled = assignment.peer.stalled(this.#plannedAt)
    if (stalled) assignment.peer.doubt(this.#plannedAt)
    this.#assignments.waste(assignment.received, stalled)
    this.#assignments.drop(assignment)
    this.#out.push({ type: 'cancel', peer: assignment.peer.id, block: assignment.block })
  }

  #assign (peer: SchedulerPeer, block: number, now: number): void {
    this.#blocks.makeBusy(block)
    peer.lastAsked = block
    this.#assignments.add(peer, block, this.#blocks.size(block), now)
    this.#out.push({ type: 'request', peer: peer.id, block })
  }

  #release (assignment: Assignment): void {
    this.#assignments.drop(assignment)
    this.#free(assignment.block)
  }

  /** Free again, unless another peer is at it. */
  #free (block: number): void {
    if (this.#assignments.of(block).length === 0) this.#blocks.makeFree(block)
  }

  /** All peers, each time beginning with another, so that none is always first. */
  #inTurn (): SchedulerPeer[] {
    const peers = [...this.#peers.values()]
    const start = peers.length === 0 ? 0 : this.#turn++ % peers.length
    return [...peers.slice(start), ...peers.slice(0, start)]
  }
}
