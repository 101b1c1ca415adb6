import { MiB } from '../base/index.ts'
import type { Assignment, SchedulerPeer } from './scheduler-peer.ts'

/** A block changes peers when that makes it come this much sooner: twice as soon, and not for a blink. */
const SOONER = 2
const SOONER_MS = 100
/** What a peer that has not delivered anything counts as. */
const ASSUMED_RATE = 16 * MiB
/** Other loaders considered when work is shared out. */
const LOADERS_CONSIDERED = 16

/**
 * Which of `assignments` gains most by going to `peer`, if any gains enough. Those whose bytes have not begun to come
 * go before all others, because taking them costs nothing.
 */
export function mostRelieved (assignments: Assignment[], peer: SchedulerPeer, now: number): Assignment | undefined {
  let best: Assignment | undefined
  let bestMs = 0
  for (const assignment of assignments) {
    const { peer: other, started } = assignment
    if (other === peer || (best !== undefined && started && !best.started)) continue
    const there = other.etaOfMs(other.queue.indexOf(assignment), now, ASSUMED_RATE)
    // A newcomer is taken to be as fast as whom it relieves: it still does one block before that one does several.
    const here = peer.etaMs(assignment.size, now, other.rate(now) ?? ASSUMED_RATE)
    if (there <= here * SOONER + SOONER_MS) continue
    if (best !== undefined && best.started === started && there <= bestMs) continue
    best = assignment
    bestMs = there
  }
  return best
}

/**
 * Near the end a slow peer is better left without work: with another block it would be the last to finish, and most
 * of what it sent would be thrown away when a faster one does it again.
 */
export function wouldLag (peer: SchedulerPeer, block: number, size: number, world: { peers: Iterable<SchedulerPeer>, freeBytes: number, now: number }): boolean {
  const { peers, freeBytes, now } = world
  const rate = peer.rate(now)
  if (rate === undefined) return false
  const own = (peer.owed + size) / rate * 1000
  for (const other of peers) {
    if (other === peer || !other.blocks.has(block) || other.rate(now) === undefined) continue
    if (other.etaMs(freeBytes, now, 0) * SOONER + SOONER_MS < own) return true
  }
  return false
}

/** How many of the other loaders come before this node for a block: all of them count alike (see Scheduler). */
export function ranking (peers: Iterable<SchedulerPeer>, self: number): (block: number) => number {
  const loaders: SchedulerPeer[] = []
  for (const peer of peers) {
    if (!peer.blocks.full && loaders.push(peer) === LOADERS_CONSIDERED) break
  }
  if (loaders.length === 0) return () => 0
  return block => {
    const own = mix(block, self)
    let before = 0
    for (const loader of loaders) if (!loader.blocks.has(block) && mix(block, loader.hash) > own) before++
    return before
  }
}

/** A 32-bit hash of two numbers (the finalizer of MurmurHash3). */
function mix (block: number, hash: number): number {
  let mixed = Math.imul(block + 1, 0x9e37_79b1) ^ hash
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85eb_ca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2_ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}
