import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { keepSwarmKey, makeDataDirectory, planJoin } from '../../../src/cli/join.ts'
import { encodeInvite } from '../../../src/discovery/invite.ts'
import { loadSwarmKey } from '../../../src/discovery/swarm-key.ts'
import { systemRandom } from '../../../src/base/index.ts'

const PEER = '/p2p/12D3KooWGzh6KxJ3sBVjYx8sGFSVBn5oc7mHjyzFm7kR4NCwr4VH'
const A = `/ip4/10.0.0.1/tcp/4108${PEER}`
const B = `/ip4/10.0.0.2/tcp/4108${PEER}`

describe('cli: joining', () => {
  const key = randomBytes(32)

  it('takes invites and addresses together, each address once', () => {
    const plan = planJoin([encodeInvite({ addresses: [A], swarmKey: key }), A, B], false)
    assert.deepEqual(plan.addresses, [A, B])
    assert.deepEqual(Buffer.from(plan.swarmKey ?? []), key)
    assert.deepEqual(planJoin([], false), { addresses: [], swarmKey: undefined })
    assert.deepEqual(planJoin([encodeInvite({ addresses: [A] })], true).addresses, [A])
  })

  it('refuses invites of different swarms, of the wrong kind of swarm, and what is neither invite nor address', () => {
    const invite = encodeInvite({ addresses: [A], swarmKey: key })
    assert.throws(() => planJoin([invite, encodeInvite({ addresses: [B], swarmKey: randomBytes(32) })], false), { name: 'ConfigError' })
    assert.throws(() => planJoin([invite], true), { name: 'ConfigError' })
    assert.throws(() => planJoin([encodeInvite({ addresses: [A] })], false), { name: 'ConfigError' })
    assert.throws(() => planJoin(['/nowhere'], false), { name: 'ConfigError' })
    assert.throws(() => planJoin([invite.slice(0, -3)], false), { name: 'InvalidInviteError' })
  })

  it('says that an address is taken as well as an invite, and not what was given', () => {
    for (const entry of ['foo', '10.0.0.1:4108', encodeInvite({ addresses: [A], swarmKey: key }).slice(3)]) {
      assert.throws(() => planJoin([entry], false), ({ name, message }: Error) => name === 'InvalidInviteError' && /"shoal1".*shoal invite.*\/ip4\/\S+\/p2p\/PEER$/.test(message) && !message.includes(entry))
    }
  })

  it('makes no data directory where none can be, and says so', async () => {
    await assert.rejects(makeDataDirectory('/proc/x/data'), { name: 'DiskError', message: /^cannot make the data directory \/proc\/x\/data: ENOENT.*; give another --data directory$/ })
    const directory = await mkdtemp(join(tmpdir(), 'shoal-join-'))
    try {
      const file = join(directory, 'file')
      await writeFile(file, '')
      for (const data of [file, join(file, 'below')]) {
        await assert.rejects(makeDataDirectory(data), { name: 'DiskError', message: `cannot make the data directory ${data}: ${file} is there and is no directory; give another --data directory` })
      }
    } finally {
      await rm(directory, { recursive: true })
    }
  })

  it('keeps the swarm key for later starts, and never replaces another', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'shoal-join-'))
    try {
      const data = join(directory, 'new', 'data')
      await keepSwarmKey(data, key)
      await keepSwarmKey(data, key)
      assert.deepEqual(Buffer.from(await loadSwarmKey(data, systemRandom)), key)
      assert.equal((await stat(join(data, 'swarm.key'))).mode & 0o777, 0o600)
      await assert.rejects(keepSwarmKey(data, randomBytes(32)), { name: 'ConfigError' })
      assert.deepEqual(Buffer.from(await loadSwarmKey(data, systemRandom)), key)
    } finally {
      await rm(directory, { recursive: true })
    }
  })
})
