import assert from 'node:assert/strict'
import { peerIdFromString } from '@libp2p/peer-id'
import { systemClock, systemRandom } from '../../../src/base/index.ts'
import { contactOf, type Contact } from '../../../src/discovery/contact.ts'
import { DhtClient } from '../../../src/discovery/dht-client.ts'
import { KAD_PROTOCOL, type Network } from '../../../src/discovery/network.ts'
import { Swarm } from './swarm.ts'
import { until } from '../../support/until.ts'

describe('streams to peers of the DHT', () => {
  const signal = new AbortController().signal
  let swarm: Swarm
  let client: DhtClient
  let contact: Contact
  const streams = (network: Network): number => network.getConnections().flatMap(connection => connection.streams).filter(({ protocol }) => protocol === KAD_PROTOCOL).length
  /** How many this node opened with that peer, in all. */
  let opened = 0

  beforeEach(async () => {
    swarm = new Swarm()
    await swarm.spawn(2)
    await swarm.connect()
    const { network } = swarm.node(0)
    opened = 0
    const dial = network.dialProtocol.bind(network)
    network.dialProtocol = async (...args) => { opened++; return await dial(...args) }
    client = new DhtClient({ network, clock: systemClock })
    contact = contactOf(peerIdFromString(swarm.node(1).peerId))
  })

  afterEach(async () => {
    client.close()
    await swarm.stop()
  })

  it('carry one question after the other, and announcements between them', async () => {
    const key = systemRandom.bytes(32)
    for (let i = 0; i < 10; i++) await client.findNode(contact, systemRandom.bytes(32), signal)
    let taken = 0
    await client.announce(contact, [key], count => { taken = count }, signal)
    assert.equal(taken, 1)
    assert.deepEqual((await client.getProviders(contact, key, signal)).providers.map(({ id }) => id), [swarm.node(0).peerId])
    assert.equal(opened, 1)
  })

  it('are several where questions are asked at once, of which one is kept, and none after close()', async () => {
    await Promise.all(Array.from({ length: 5 }, async () => await client.findNode(contact, systemRandom.bytes(32), signal)))
    assert.equal(opened, 5)
    await client.findNode(contact, systemRandom.bytes(32), signal)
    assert.equal(opened, 5)
    client.close()
    await until('no stream is left', () => streams(swarm.node(1).network) === 0)
  })

  it('are opened anew when the peer has ended the one that was kept', async () => {
    await client.findNode(contact, systemRandom.bytes(32), signal)
    const endAll = (): void => { for (const connection of swarm.node(1).network.getConnections()) for (const stream of connection.streams) if (stream.protocol === KAD_PROTOCOL) stream.abort(new Error('enough of it')) }
    endAll()
    // Neither before nor after the news of it has come.
    await client.findNode(contact, systemRandom.bytes(32), signal)
    assert.equal(opened, 2)
    endAll()
    let taken = 0
    await client.announce(contact, [systemRandom.bytes(32), systemRandom.bytes(32)], count => { taken = count }, signal)
    assert.deepEqual([taken, opened], [2, 3])
  })

  it('with one that is gone fail as they did, and a question that was called off leaves none', async () => {
    await client.findNode(contact, systemRandom.bytes(32), signal)
    const called = new AbortController()
    const asking = client.findNode(contact, systemRandom.bytes(32), called.signal)
    called.abort(new Error('found already'))
    await assert.rejects(asking, { name: 'Error', message: 'found already' })
    await swarm.kill(1)
    await assert.rejects(client.findNode(contact, systemRandom.bytes(32), signal), { name: 'ConnectionFailedError' })
    assert.equal(streams(swarm.node(0).network), 0)
  })
})
