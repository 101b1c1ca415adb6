/**
 * Rendezvous (highest random weight) hashing: everybody ranks the same peers for a shard in the same order without
 * talking (Thaler and Ravishankar 1998). Not cryptographic: who grinds a peer id to rank first only gets work to do.
 */

/** 32 bits of a name, computed once for each peer and model (FNV-1a with a final mix). */
export function nameHash (name: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193)
  return mix(hash)
}

/** The weight of a peer for a shard of a model, in (0, 1): the highest ranks first. */
export function weight (modelHash: number, shard: number, peerHash: number): number {
  return (mix(mix(modelHash ^ Math.imul(shard + 1, 0x9e3779b1)) ^ peerHash) + 0.5) / 0x1_0000_0000
}

/** The same with a share: of two peers, one with twice the share comes first twice as often. */
export function weightedScore (weight: number, share: number): number {
  return share / -Math.log(weight)
}

/** The finalizer of MurmurHash3 (public domain). */
function mix (value: number): number {
  let hash = value
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
