import assert from 'node:assert/strict'
import { setTimeout as wait } from 'node:timers/promises'
import { REPLICA_FOUND_MAX, silentLogger, systemClock } from '../../../src/base/index.ts'
import { KAD_PROTOCOL } from '../../../src/discovery/network.ts'
import { Searches } from '../../../src/replication/searches.ts'
import { randomCid } from '../../compliance/router.ts'
import { Swarm } from '../discovery/swarm.ts'
import { fakeProviders } from '../../support/fake-providers.ts'
import { until } from '../../support/until.ts'

const DAG_CBOR = 0x71

describe('searches for who has a model', () => {
  let swarm: Swarm
  let searches: Searches
  let found: string[][]
  beforeEach(async () => {
    swarm = new Swarm()
    await swarm.spawn(3)
    found = []
    searches = searchesOf((_model, peerIds) => { found.push(peerIds) })
  })
  const searchesOf = (tell: ConstructorParameters<typeof Searches>[1]): Searches => {
    const { network, router } = swarm.node(0)
    return new Searches({ network, router, clock: systemClock, logger: silentLogger, learn: async () => { await Promise.resolve() } }, tell)
  }
  afterEach(async () => {
    await searches.stop()
    await swarm.stop()
  })

  it('that begin before anybody is connected say nothing until somebody is', async () => {
    const cid = randomCid(DAG_CBOR)
    await swarm.connect([swarm.node(1), swarm.node(2)])
    swarm.node(1).router.announce([cid], { urgent: true })
    await until('it is announced', () => swarm.node(1).router.status().announced > 0)
    searches.find(cid.toString())
    await wait(100)
    assert.deepEqual(found, [], 'who has asked nobody knows of nobody')
    await swarm.connect([swarm.node(2), swarm.node(0)])
    await until('it is found', () => found.length > 0)
    assert.deepEqual(found, [[swarm.node(1).peerId]])
  })

  it('end when the node stops, also while they wait for a connection', async () => {
    const cid = randomCid(DAG_CBOR)
    searches.find(cid.toString())
    await wait(50)
    await searches.stop()
    assert.deepEqual(found, [])
    await swarm.connect()
    swarm.node(1).router.announce([cid], { urgent: true })
    await until('it is announced', () => swarm.node(1).router.status().announced > 0)
    const later: string[][] = []
    const next = searchesOf((_model, peerIds) => { later.push(peerIds) })
    next.find(cid.toString())
    await until('another search finds it', () => later.length > 0)
    await next.stop()
    assert.deepEqual([later, found], [[[swarm.node(1).peerId]], []])
  })

  it('say that nobody has it when those who are connected do not', async () => {
    await swarm.connect()
    searches.find(randomCid(DAG_CBOR).toString())
    await until('it is found', () => found.length > 0)
    assert.deepEqual(found, [[]])
  })
  it('hear of who has it beside a liar that names a hundred others', async () => {
    await swarm.spawn(1)
    const cid = randomCid(DAG_CBOR)
    await swarm.connect(swarm.nodes.slice(0, 3))
    swarm.node(1).router.announce([cid], { urgent: true })
    await until('it is announced', () => swarm.node(1).router.status().announced > 0)
    const answer = await fakeProviders(100)
    const { network } = swarm.node(3)
    await network.unhandle(KAD_PROTOCOL)
    await network.handle(KAD_PROTOCOL, stream => {
      stream.addEventListener('message', () => { if (stream.writeStatus === 'writable') stream.send(answer) })
    })
    await swarm.connect([swarm.node(0), swarm.node(3)])
    const namedBy = new Map<string, string | undefined>()
    for await (const provider of swarm.node(0).router.findProviders(cid)) namedBy.set(provider.peerId, provider.namedBy)
    assert.equal([...namedBy.values()].filter(by => by === swarm.node(3).peerId).length, 100)
    assert.notEqual(namedBy.get(swarm.node(1).peerId), swarm.node(3).peerId)
    searches.find(cid.toString())
    await until('it is found', () => found.length > 0)
    assert.equal(found[0]?.length, REPLICA_FOUND_MAX, 'the liar was asked')
    assert.ok(found[0].includes(swarm.node(1).peerId))
  })
})
