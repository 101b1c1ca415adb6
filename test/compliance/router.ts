import assert from 'node:assert/strict'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'
import { systemRandom } from '../../src/base/index.ts'
import type { ContentRouter, Provider } from '../../src/discovery/router.ts'
import { until } from '../support/until.ts'

export interface RouterSwarm {
  /** Started, and acquainted with each other. */
  routers: Array<{ router: ContentRouter, peerId: string }>
  /** Stops one router and starts it again with what it kept. */
  restart: (position: number) => Promise<void>
  stop: () => Promise<void>
}

export function randomCid (code = 0x55): CID {
  return CID.createV1(code, Digest.create(0x1e, systemRandom.bytes(32)))
}

export async function collect (providers: AsyncIterable<Provider>): Promise<string[]> {
  const found: string[] = []
  for await (const provider of providers) found.push(provider.peerId)
  return found.sort()
}

/** What every ContentRouter does. `make` gives a swarm of `count` routers that know each other. */
export function routerCompliance (make: (count: number) => Promise<RouterSwarm>): void {
  let swarm: RouterSwarm
  const router = (position: number): ContentRouter => (swarm.routers[position] ?? assert.fail()).router
  const peerId = (position: number): string => (swarm.routers[position] ?? assert.fail()).peerId

  beforeEach(async () => { swarm = await make(4) })
  afterEach(async () => { await swarm.stop() })

  const announced = async (position: number): Promise<void> => {
    await until('it is announced', () => {
      const { backlog, sweptAt } = router(position).status()
      return backlog === 0 && sweptAt !== undefined
    })
  }

  it('finds every provider, each once, from every node, and never the asking node itself', async () => {
    const cid = randomCid()
    for (const position of [0, 1, 2]) router(position).announce([cid])
    for (const position of [0, 1, 2]) await announced(position)
    for (let position = 0; position < 4; position++) {
      const expected = [0, 1, 2].filter(other => other !== position).map(peerId).sort()
      assert.deepEqual(await collect(router(position).findProviders(cid)), expected, `from node ${position}`)
    }
  })

  it('finds nothing of what nobody announced, says whom it asked, and ends', async () => {
    const asked: string[] = []
    assert.deepEqual(await collect(router(0).findProviders(randomCid(), { onAsked: peer => { asked.push(peer) } })), [])
    assert.deepEqual(asked.sort(), [1, 2, 3].map(peerId).sort())
  })

  it('announces many, of any codec, as one thing by multihash', async () => {
    const cids = Array.from({ length: 300 }, () => randomCid())
    router(1).announce(cids)
    await announced(1)
    assert.equal(router(1).status().keys, 300)
    for (const cid of [cids[0], cids[150], cids[299]]) {
      assert.ok(cid !== undefined)
      assert.deepEqual(await collect(router(2).findProviders(cid)), [peerId(1)])
      assert.deepEqual(await collect(router(3).findProviders(CID.createV1(0x71, cid.multihash))), [peerId(1)])
    }
  })

  it('announces what is urgent within a second', async () => {
    const cid = randomCid()
    const started = performance.now()
    router(0).announce([cid], { urgent: true })
    await until('it is found', async () => (await collect(router(3).findProviders(cid))).length > 0)
    assert.ok(performance.now() - started < 1_000)
  })

  it('says when what is urgent is out: who searches then finds it at once', async () => {
    const cid = randomCid()
    router(0).announce([cid], { urgent: true })
    await router(0).sent(cid)
    assert.deepEqual(await collect(router(3).findProviders(cid)), [peerId(0)])
    await router(0).sent(randomCid()) // nothing to wait for
    await assert.rejects(router(0).sent(cid, { signal: AbortSignal.abort() }), { name: 'AbortError' })
  })

  it('keeps count of what it keeps announced', async () => {
    const cids = Array.from({ length: 10 }, () => randomCid())
    router(0).announce(cids)
    router(0).announce(cids)
    await announced(0)
    await until('ten are kept', () => router(0).status().keys === 10)
    router(0).withdraw(cids.slice(0, 4))
    router(0).withdraw(cids.slice(0, 4))
    router(0).withdraw([randomCid()])
    await until('six are kept', () => router(0).status().keys === 6)
    assert.equal(router(0).status().backlog, 0)
    assert.equal(router(0).status().lagMs, 0)
    assert.equal(router(0).status().failed, 0)
  })

  it('takes what comes last for true when a thing is announced and withdrawn in a row', async () => {
    const [a, b] = [randomCid(), randomCid()]
    router(0).announce([a])
    router(0).withdraw([a])
    router(0).withdraw([b])
    router(0).announce([b])
    await until('one is kept', () => {
      const { keys, backlog } = router(0).status()
      return keys === 1 && backlog === 0
    })
    assert.deepEqual(await collect(router(1).findProviders(b)), [peerId(0)])
  })

  it('goes on with what it kept after a restart', async () => {
    const cids = Array.from({ length: 5 }, () => randomCid())
    router(0).announce(cids)
    await announced(0)
    await swarm.restart(0)
    assert.equal(router(0).status().keys, 5)
    assert.deepEqual(await collect(router(1).findProviders(cids[4] ?? assert.fail())), [peerId(0)])
  })

  it('ends a search when the reader stops reading', async () => {
    const cid = randomCid()
    for (const position of [0, 1]) router(position).announce([cid])
    for (const position of [0, 1]) await announced(position)
    for await (const provider of router(2).findProviders(cid)) {
      assert.ok([peerId(0), peerId(1)].includes(provider.peerId))
      break
    }
  })

  it('ends a search with the reason of the signal', async () => {
    await assert.rejects(collect(router(0).findProviders(randomCid(), { signal: AbortSignal.abort() })), { name: 'AbortError' })
    const cid = randomCid()
    router(1).announce([cid])
    await announced(1)
    const stop = new AbortController()
    const search = async (): Promise<void> => {
      for await (const provider of router(0).findProviders(cid, { signal: stop.signal })) {
        assert.equal(provider.peerId, peerId(1))
        stop.abort()
      }
    }
    await assert.rejects(search(), { name: 'AbortError' })
  })

  it('stops while it works, more than once, and starts again', async () => {
    router(0).announce(Array.from({ length: 2_000 }, () => randomCid()), { urgent: true })
    await router(0).stop()
    await router(0).stop()
    await router(0).start()
    const cid = randomCid()
    router(0).announce([cid], { urgent: true })
    await until('it announces after the start', async () => (await collect(router(3).findProviders(cid))).includes(peerId(0)))
  })
}
