import { setFlagsFromString } from 'node:v8'

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

/**
 * Keeps V8's young generation at the size that starting gave it (some MiB); called once by programs that are up. It would
 * double, and double again, whenever a moment's survivors are many: 13 MiB more at some point of a long load, and no
 * faster (docs/decisions/0002-garbage.md).
 */
export function holdYoungGeneration (): void {
  setFlagsFromString('--semi-space-growth-factor=1')
}

/**
 * Sets the process up for many nodes (simulation, tests): V8 collects earlier, because what a hundred nodes drop while
 * they connect is several times what they keep. Measured with 100 nodes: 1.46 GiB resident without, 0.8 with, no slower.
 */
export function tuneForManyNodes (): void {
  setFlagsFromString('--heap-growing-percent=50')
}
