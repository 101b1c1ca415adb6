import { randomBytes } from 'node:crypto'

/** Randomness, injected, so that a seed replays a run. */
export interface Random {
  /** A number in [0, 1). */
  next: () => number
  /** `length` random bytes. */
  bytes: (length: number) => Uint8Array
}

export const systemRandom: Random = {
  next: () => Math.random(),
  bytes: length => randomBytes(length)
}

/**
 * A seeded generator for simulations and tests, never for secrets. sfc32, as published in PractRand
 * (pracrand.sourceforge.net); twelve rounds mix the seed in.
 */
export function seededRandom (seed: number): Random {
  let a = 0x9e3779b9; let b = 0x243f6a88; let c = seed | 0; let d = 1
  const word = (): number => {
    const t = (((a + b) | 0) + d) | 0
    d = (d + 1) | 0
    a = b ^ (b >>> 9)
    b = (c + (c << 3)) | 0
    c = (c << 21) | (c >>> 11)
    c = (c + t) | 0
    return t >>> 0
  }
  for (let i = 0; i < 12; i++) word()
  return {
    next: () => word() / 0x1_0000_0000,
    bytes: length => {
      const bytes = new Uint8Array(length)
      for (let i = 0; i < length; i++) bytes[i] = word() // its lowest byte
      return bytes
    }
  }
}

/** A whole number in [0, below). */
export function randomInt (random: Random, below: number): number {
  return Math.floor(random.next() * below)
}

/** Fisher-Yates, in place. */
export function shuffle<T> (random: Random, items: T[]): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = randomInt(random, i + 1)
    const held = items[i] as T
    items[i] = items[j] as T
    items[j] = held
  }
  return items
}
