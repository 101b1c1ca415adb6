import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { MiB } from './limits.ts'

/**
 * Sets the process up for moving bulk bytes; called once by programs (the daemon, benches), never by a library import,
 * because it changes the whole process.
 *
 * Each encrypted frame is a fresh buffer outside V8's heap (node:crypto cannot write into one of ours). By default V8
 * starts a full collection for each 64 MiB of such buffers, whatever its heap: 140 to 260 collections a GiB, and half of
 * the CPU time of a load. With this flag external bytes count into the ordinary heap limit, which grows as it should.
 * Measured, CPU seconds a GiB over TCP, swarm key, Noise and Yamux: seeder 7.5 without, 3.5 with; loader 6.6 and 3.3
 * (docs/decisions/0002-garbage.md).
 */
export function tuneForBulk (): void {
  setFlagsFromString('--external-memory-accounted-in-global-limit')
  // That limit is a multiple of what lives, and hardly anything does: with V8's own factor a seeder still collects
  // everything 24 times a GiB, on four threads.
  setFlagsFromString('--heap-growing-percent=200')
}

/** What old space may gather beyond what lives, whichever is more, before it is collected; and how often that is looked at. */
const OLD_GARBAGE_BYTES_MAX = 1 * MiB
const OLD_GARBAGE_SHARE_MAX = 0.1
const LOOK_MS = 500
/** Of the time: where cores are short a collection takes long, and V8's own limit has to do. */
const COLLECTING_SHARE_MAX = 0.01
/** A larger heap takes too long to collect in one go, and a few MiB more do not show beside it: V8 knows best. */
const HELD_BYTES_MAX = 64 * MiB

/**
 * Keeps V8's heap at the size that starting gave it; called once by programs that are up, because it changes the whole process
 * (docs/decisions/0002-garbage.md). The young generation would double, and double again, whenever a moment's survivors are
 * many: 13 MiB more at some point of a long load, and no faster. And what was promoted and died is left lying until the heap
 * has tripled (tuneForBulk), which bytes outside the heap want and it does not: 1 to 2 MiB for each GiB that is moved. A
 * collection of such a heap takes some 15 ms, and is due every two GiB. With hundreds of messages a second it would be due every two seconds, and take 100 to 200 ms where cores are short.
 */
export function holdHeap (): void {
  setFlagsFromString('--semi-space-growth-factor=1')
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as (options: { type: 'major' }) => void
  let live = 0 // until the first look: who waits for the start need not wait for a collection
  let restsUntil = 0
  setInterval(() => {
    const now = performance.now()
    if (now < restsUntil) return
    const bytes = oldSpaceBytes()
    if (live !== 0 && (bytes >= HELD_BYTES_MAX || bytes - live <= Math.max(OLD_GARBAGE_BYTES_MAX, live * OLD_GARBAGE_SHARE_MAX))) return
    collect({ type: 'major' })
    live = oldSpaceBytes()
    restsUntil = now + (performance.now() - now) / COLLECTING_SHARE_MAX
  }, LOOK_MS).unref()
}

function oldSpaceBytes (): number {
  return getHeapSpaceStatistics().find(space => space.space_name === 'old_space')?.space_used_size ?? 0
}
