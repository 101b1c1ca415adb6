import { MiB } from '../base/index.ts'
import type { Assignment, SchedulerPeer } from './scheduler-peer.ts'

/** A block changes peers when that makes it come this much sooner: twice as soon, and not for a blink. */
const SOONER = 2
const SOONER_MS = 100
/** What a peer that has not delivered anything counts as. */
export const ASSUMED_RATE = 16 * MiB
/** Whoever waits longer than this for a last block takes the load to hang. */
export const WAIT_MS_MAX = 5_000
/** Finishing so much later than the rest is to be the last. */
const LAGGING = 1.25
/** A block under way for so long has shown when it will be here, */
const PROOF_MS = 2_000
/** and this share of it is soon made up for. */
const LITTLE = 0.125
/** One that got nothing for so long loads no more, or nothing that can be waited for. */
const QUIET_MS = 30_000
/** Other loaders considered when work is shared out. */
const LOADERS_CONSIDERED = 16

/**
 * Which of `assignments` gains most by going to `peer`, if any gains enough. Those whose bytes have not begun to come
 * go before all others, because taking them costs nothing.
 */
export function mostRelieved (assignments: Assignment[], peer: SchedulerPeer, now: number): Assignment | undefined {
  let best: Assignment | undefined
  let bestMs = 0
  let bestBegun = false
  for (const assignment of assignments) {
    const { peer: other } = assignment
    const begun = other.begun(assignment, now)
    if (other === peer || peer.find(assignment.block) !== undefined || (best !== undefined && begun && !bestBegun)) continue
    const there = other.etaOfMs(other.queue.indexOf(assignment), now, ASSUMED_RATE)
    // A newcomer is taken to be as fast as whom it relieves: it still does one block before that one does several. But
    // no faster than it would be taken to be if it were relieved itself, or blocks would go to and fro. Where one crawls,
    // anybody is worth a try: the block is not taken from whom it is with.
    const crawls = begun && there > WAIT_MS_MAX
    const here = peer.etaMs(assignment.size, now, crawls ? ASSUMED_RATE : Math.min(other.rate(now) ?? ASSUMED_RATE, ASSUMED_RATE))
    if (there <= here * SOONER + SOONER_MS) continue
    if (best !== undefined && bestBegun === begun && there <= bestMs) continue
    best = assignment
    bestBegun = begun
    bestMs = there
  }
  return best
}

/** All peers of a load. */
export interface Company { peers: Iterable<SchedulerPeer>, now: number }

/** What is left to fetch, and who could. */
export interface Prospect extends Company {
  /** Milliseconds until all is done if all peers go on as they do. */
  endMs: number
}

/** Has this peer stalled lately, while one that has not would give the block before long? */
export function doubted (peer: SchedulerPeer, block: number, size: number, { peers, now }: Company): boolean {
  if (!peer.doubtful(now)) return false
  for (const other of peers) {
    if (other !== peer && other.blocks.has(block) && !other.doubtful(now) && other.etaMs(size, now, ASSUMED_RATE) <= WAIT_MS_MAX) return true
  }
  return false
}

/**
 * Who may relieve others of this block: not a suspect while somebody else has time for it and would give it before long. One that
 * stalled just now may not in any case: two silent peers would hand a block to and fro.
 */
export function mayRelieve (peer: SchedulerPeer, block: number, size: number, { peers, now }: Company): boolean {
  if (!peer.suspect) return true
  if (peer.doubtful(now)) return false
  for (const other of peers) {
    const isBetter = other !== peer && !other.suspect && other.blocks.has(block) && other.find(block) === undefined
    if (isBetter && other.hasRoom(now) && other.etaMs(size, now, ASSUMED_RATE) <= WAIT_MS_MAX) return false
  }
  return true
}

/**
 * Is this block better left to others? Near the end, when this peer would be the last to finish with it while another
 * is sooner: most of what it sends would be thrown away when that one does it again. And when it has everything, is
 * busy with others, and somebody who has only a part can give this block just as soon: what only the full holder has
 * should not wait for what others have too.
 */
export function betterLeft (peer: SchedulerPeer, block: number, size: number, { peers, endMs, now }: Prospect): boolean {
  if (peer.rate(now) === undefined) return false
  const own = peer.etaMs(size, now, 0)
  const isLast = own > endMs * LAGGING + SOONER_MS
  if (!isLast && !peer.blocks.filled) return false
  for (const other of peers) {
    if (other === peer || !other.blocks.has(block) || other.rate(now) === undefined || other.doubtful(now)) continue
    const there = other.etaMs(size, now, 0)
    if (isLast && Math.max(there, endMs) * LAGGING + SOONER_MS < own) return true
    if (peer.blocks.filled && !other.blocks.filled && other.hasRoom(now) && there <= own) return true
  }
  return false
}

/** It has been on its way for long enough to show how fast it comes, and little of it is here. */
export function isYoung ({ size, received, startedAt }: Assignment, now: number): boolean {
  return startedAt !== undefined && now - startedAt >= PROOF_MS && received <= size * LITTLE
}

/** Will a block that `isYoung` come so late that others will have to fetch it as well? So it is with a peer that crawls: a block of it takes longer than all the rest. */
export function isHopeless ({ peer, block, size }: Assignment, { peers, endMs, now }: Prospect): boolean {
  if (peer.stalled(now)) return false
  const there = peer.etaOfMs(0, now, 0)
  for (const other of peers) {
    if (other === peer || !other.blocks.has(block) || other.rate(now) === undefined || other.doubtful(now)) continue
    if (there > Math.max(other.etaMs(size, now, 0), endMs) * SOONER + WAIT_MS_MAX) return true
  }
  return false
}

/**
 * In which order this node takes equally rare blocks, lowest first. All nodes that load the same model rank themselves
 * for each block by a hash. A node takes those first for which it comes first (values below 1), in falling order of its
 * hash; then those for which one other comes before it, beginning with what that one takes last; and so on. So they
 * take different blocks from the one who has them all, without a word between them.
 */
export function ranking (peers: Iterable<SchedulerPeer>, self: number, now: number): ((block: number) => number) | undefined {
  const loaders: SchedulerPeer[] = []
  for (const peer of peers) {
    if (!peer.blocks.full && now - peer.gainedAt < QUIET_MS && loaders.push(peer) === LOADERS_CONSIDERED) break
  }
  if (loaders.length === 0) return undefined
  return block => {
    const own = mix(block, self)
    let before = 0
    let first = 0
    for (const loader of loaders) {
      if (loader.blocks.has(block)) continue
      const other = mix(block, loader.hash)
      if (other <= own) continue
      before++
      first = Math.max(first, other)
    }
    return before + (before === 0 ? 1 - own / 2 ** 32 : first / 2 ** 32) * 0.999
  }
}

/** A 32-bit hash of two numbers (the finalizer of MurmurHash3). */
function mix (block: number, hash: number): number {
  let mixed = Math.imul(block + 1, 0x9e37_79b1) ^ hash
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85eb_ca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2_ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}
