/**
 * Models that nobody in the swarm has, from an upstream Hub, once. `access.ts` asks the upstream what a name stands for and who may
 * have it; `find.ts` asks the swarm, and decides (claims.ts, pure) whose turn it is; `fetch.ts` fetches (download.ts) and publishes
 * (instalments.ts) what `following.ts` learns of at the others; `comparisons.ts` compares what peers give; `leftovers.ts` is what broke off;
 * `origin.ts` holds it together. docs/decisions/0009-origin.md says why so.
 */
export type { Hints, OriginComponents } from './components.ts'
export { keyOf } from './known-model.ts'
export { LEFTOVER_IDLE_MS } from './instalment-book.ts'
export { Leftovers, leftoversIn } from './leftovers.ts'
export { Origin } from './origin.ts'
export type { OriginInit } from './origin.ts'
export type * from './types.ts'
