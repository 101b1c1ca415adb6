import type { Replicator, ReplicatorInit } from '../../src/replication/replicator.ts'
import type { PolicyRecord, ReplicaMessage, ReplicaPorts, ReplicationSettings } from '../../src/replication/types.ts'
import type { SimNode } from './node.ts'
import type { FaultName, Key } from './types.ts'

/** A bug, put around the real Replicator: its settings, what it remembers, its ports, what it hears, its answers. */
export interface Plant {
  name: string
  /** What somebody got wrong. */
  what: string
  /** Under which it shows. */
  faults: FaultName[]
  hours?: number
  /** The invariant that has to see it; else any. */
  shows?: string
  /** The first that shows it, for the test; the hunt begins at its own. */
  seed?: number
  settings?: (settings: ReplicationSettings) => ReplicationSettings
  init?: (init: ReplicatorInit) => ReplicatorInit
  ports?: (ports: ReplicaPorts, node: SimNode, keyOf: (model: string, shard: number) => Key) => ReplicaPorts
  receive?: (message: ReplicaMessage, from: SimNode, to: SimNode) => ReplicaMessage | undefined
  patch?: (replicator: Replicator, node: SimNode) => void
  scrubMs?: number
  /** What a start makes of what the ledger says about its volume. */
  suspectSince?: (saved: number | undefined) => number | undefined
}

export const NEVER = 1e15

export function withPolicy (change: (record: PolicyRecord) => PolicyRecord): Plant['ports'] {
  return ports => ({
    ...ports,
    readPolicy: bytes => {
      const record = ports.readPolicy(bytes)
      return record === undefined ? undefined : change(record)
    }
  })
}
