import assert from 'node:assert/strict'
import { MiB } from '../../../src/base/index.ts'
import { seedOf } from '../../compliance/store-fixtures.ts'
import { assertHeld, modelOf } from '../lanes/cases.ts'
import { Peers, connect, holdAll, startFetch, type TestPeer } from './peers.ts'
import { until } from '../../support/until.ts'

const seed = seedOf()

/** It knows where the other is, and has not dialled it. */
async function learn (loader: TestPeer, holder: TestPeer): Promise<void> {
  await loader.network.peerStore.merge(holder.network.peerId, { multiaddrs: holder.network.getMultiaddrs() })
}

describe(`a fetch that expects a peer to call (seed ${seed})`, function () {
  this.timeout(20_000)

  it('dials it after some seconds when it does not', async () => {
    await using peers = new Peers()
    const [loader, holder] = [await peers.add({ transport: 'tcp' }), await peers.add({ transport: 'tcp' })]
    const sample = modelOf(seed, MiB)
    await holdAll(holder.store, sample)
    await learn(loader, holder)
    const fetch = await startFetch(loader, sample, [])
    const startedAt = performance.now()
    fetch.expectPeer(holder.id)
    fetch.expectPeer(holder.id)
    await fetch.done
    assert(performance.now() - startedAt > 1_500)
    await assertHeld(loader, sample)
    assert.equal(loader.network.getConnections().length, 1)
  })

  it('asks at once the one it is connected to, and the one that is named in the meantime', async () => {
    await using peers = new Peers()
    const [loader, first, second] = [await peers.add({ transport: 'tcp' }), await peers.add({ transport: 'tcp' }), await peers.add({ transport: 'tcp' })]
    for (const [i, holder] of [first, second].entries()) {
      const sample = modelOf(seed + 1 + i, MiB)
      await holdAll(holder.store, sample)
      if (i === 0) await connect(loader, holder)
      else await learn(loader, holder)
      const fetch = await startFetch(loader, sample, [])
      const startedAt = performance.now()
      fetch.expectPeer(holder.id)
      if (i === 1) fetch.addPeer(holder.id)
      await until('a byte came', () => fetch.stats().fetchedBytes > 0, { withinMs: 5_000 })
      assert(performance.now() - startedAt < 1_500)
      await fetch.done
    }
  })
})
