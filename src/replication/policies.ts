import { REPLICA_POLICIES_MAX } from '../base/index.ts'
import type { Policy, PolicyRecord } from './types.ts'

export const NO_POLICY: Policy = { min: 0, target: 0, max: 0 }

/** What is known of a model after some records came: the newest of each publisher, what of it is new, and what had to go for that. */
export interface Merged {
  records: ReadonlyMap<string, PolicyRecord>
  saved: PolicyRecord[]
  dropped: PolicyRecord[]
}

/**
 * Takes in records of one model. Of one publisher the highest sequence counts. Those of so many publishers are known, and of `self`, whose own word is
 * always taken and never goes. Among the others who asks for replicas is heard before who asks for nothing: a record that asks goes for no other, so
 * that nobody unpins a model with names that he makes up; who asks for nothing and was never heard to ask is remembered while there is room. That is for
 * holders that come late: the record it ends may still be on its way from somebody who was gone meanwhile. Where there was no room, that one counts until
 * the end of it is told again, as it is in each state of who knows it; then its publisher is known, and there is room.
 */
export function mergePolicies (known: ReadonlyMap<string, PolicyRecord>, given: Iterable<PolicyRecord>, self: string): Merged {
  const records = new Map(known)
  const saved = new Map<string, PolicyRecord>()
  const dropped: PolicyRecord[] = []
  for (const record of given) {
    const { publisher, sequence, target } = record
    const before = records.get(publisher)
    if (before !== undefined && before.sequence >= sequence) continue
    if (before === undefined && !hasRoom(records, publisher, self)) {
      const ended = target > 0 ? oldestEnded(records, self) : undefined
      if (ended === undefined) continue
      records.delete(ended.publisher)
      saved.delete(ended.publisher)
      if (known.has(ended.publisher)) dropped.push(ended)
    }
    records.set(publisher, record)
    saved.set(publisher, record)
  }
  return { records, saved: [...saved.values()], dropped }
}

function hasRoom (records: ReadonlyMap<string, PolicyRecord>, publisher: string, self: string): boolean {
  return publisher === self || records.size - (records.has(self) ? 1 : 0) < REPLICA_POLICIES_MAX
}

function oldestEnded (records: ReadonlyMap<string, PolicyRecord>, self: string): PolicyRecord | undefined {
  for (const record of records.values()) if (record.target === 0 && record.publisher !== self) return record
  return undefined
}

/** As many as one message may have: this node's own first, then those that ask for replicas. */
export function toldPolicies (records: ReadonlyMap<string, PolicyRecord>, self: string): Uint8Array[] {
  const rank = ({ publisher, target }: PolicyRecord): number => publisher === self ? 0 : target > 0 ? 1 : 2
  return [...records.values()].sort((a, b) => rank(a) - rank(b)).slice(0, REPLICA_POLICIES_MAX).map(record => record.bytes)
}

/** Publishers do not overrule each other: a model has the replicas that the most demanding of them asks for. */
export function effectivePolicy (records: Iterable<PolicyRecord>): Policy {
  let policy = NO_POLICY
  for (const { min, target, max } of records) {
    // In whatever order they came: all nodes have to find the same.
    const more = target - policy.target || max - policy.max || min - policy.min
    if (target > 0 && more > 0) policy = { min, target, max }
  }
  return policy
}
