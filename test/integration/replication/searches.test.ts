import assert from 'node:assert/strict'
import { setTimeout as wait } from 'node:timers/promises'
import { silentLogger, systemClock } from '../../../src/base/index.ts'
import { Searches } from '../../../src/replication/searches.ts'
import { randomCid } from '../../compliance/router.ts'
import { Swarm } from '../discovery/swarm.ts'
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
})
