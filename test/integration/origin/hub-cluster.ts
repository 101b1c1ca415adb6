import { systemClock, type Clock } from '../../../src/base/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { Cluster, type ClusterInit } from '../../support/cluster.ts'
import { Hub } from '../../support/hub.ts'

/** Nodes that take models from this Hub, and keep what they have for themselves. */
export function hubCluster (hub: Hub, init: Pick<ClusterInit, 'clock'> = {}): Cluster {
  return new Cluster({ transport: 'tcp', ...init, settings: { origin: { upstream: hub.url }, replication: { min: 0, target: 0, max: 0 } } })
}

/** A Hub, nodes that take from it, and how long a test may take, all anew for each test of a suite. */
export function eachWithHub (timeoutMs: number, use: (made: { hub: Hub, cluster: Cluster, signal: AbortSignal }) => void): void {
  let hub: Hub
  let cluster: Cluster
  beforeEach(async () => {
    hub = await Hub.start()
    cluster = hubCluster(hub)
    use({ hub, cluster, signal: AbortSignal.timeout(timeoutMs) })
  })
  afterEach(async () => {
    await cluster.teardown()
    await hub.stop()
  })
}

/** On it everything waits so many times shorter; what is measured is as it is. */
export function times (factor: number): Clock {
  return { ...systemClock, setTimeout: (work, delayMs) => systemClock.setTimeout(work, delayMs / factor) }
}

/** What it does about the model it was asked for first; undefined: nothing any more. */
export function phaseOf (node: ShoalNode): string | undefined {
  return node.origin?.status().fetches[0]?.phase
}
