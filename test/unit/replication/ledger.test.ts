import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { silentLogger, type Logger } from '../../../src/base/index.ts'
import { Ledger } from '../../../src/replication/ledger.ts'
import { temporaryDirectory } from '../../support/files.ts'

describe('the ledger of replicas', () => {
  it('keeps what it was told over a restart', async () => {
    await using directory = await temporaryDirectory('ledger')
    const file = join(directory.path, 'replication.sqlite')
    {
      using ledger = new Ledger(file, silentLogger)
      ledger.save({ model: 'm', shards: [1], committed: true })
      ledger.save({ model: 'm', shards: [1], committed: true })
      ledger.save({ model: 'm', shards: [2], committed: true })
      ledger.save({ model: 'n', shards: [0], committed: true })
      ledger.save({ model: 'm', shards: [2], committed: false })
      ledger.savePolicies({ saved: [{ model: 'm', publisher: 'p', sequence: 2 ** 53 - 1, bytes: Uint8Array.of(2) }, { model: 'm', publisher: 'q', sequence: 1, bytes: Uint8Array.of(3) }], dropped: [] })
      ledger.savePolicies({ saved: [{ model: 'm', publisher: 'p', sequence: 1, bytes: Uint8Array.of(1) }], dropped: [{ model: 'm', publisher: 'q' }] })
      ledger.setState('scrubbedAt', 12.5)
    }
    using ledger = new Ledger(file, silentLogger)
    assert.deepEqual(ledger.commitments(), [{ model: 'm', shard: 1 }, { model: 'n', shard: 0 }])
    assert.deepEqual(ledger.policies(), [{ model: 'm', publisher: 'p', sequence: 2 ** 53 - 1, bytes: Uint8Array.of(2) }])
    assert.equal(ledger.state('scrubbedAt'), 12.5)
    assert.equal(ledger.state('other'), undefined)
  })

  it('sets a damaged file aside, says so, and starts empty', async () => {
    await using directory = await temporaryDirectory('ledger')
    for (const [at, damage] of [(bytes: Buffer) => bytes.fill(7), (bytes: Buffer) => bytes.fill(7, 4_096 + 8), (bytes: Buffer) => bytes.subarray(0, 5_000)].entries()) {
      const file = join(directory.path, `replication-${at}.sqlite`)
      {
        using ledger = new Ledger(file, silentLogger)
        ledger.save({ model: 'm', shards: Array.from({ length: 2_000 }, (_, shard) => shard), committed: true })
      }
      writeFileSync(file, damage(readFileSync(file)))
      const errors: string[] = []
      const logger: Logger = { ...silentLogger, error: (_, message) => { errors.push(message) } }
      using ledger = new Ledger(file, logger)
      assert.deepEqual(ledger.commitments(), [], `damage ${at}`)
      assert.equal(errors.length, 1, `damage ${at}`)
      assert.ok(existsSync(`${file}.damaged`))
      ledger.save({ model: 'm', shards: [1], committed: true })
    }
  })

  it('knows over restarts whether there was one before it, and since when what that said is unknown', async () => {
    await using directory = await temporaryDirectory('ledger')
    const file = join(directory.path, 'replication.sqlite')
    for (const [isNew, lostAt, then] of [[true, undefined, undefined], [true, undefined, 1_700_000_000_000], [false, 1_700_000_000_000, undefined], [false, undefined, undefined]] as const) {
      using ledger = new Ledger(file, silentLogger)
      assert.deepEqual([ledger.isNew, ledger.lostAt], [isNew, lostAt])
      if (!isNew || then !== undefined) ledger.lostAt = then
      // Ended before anybody said: the next start says.
    }
  })

  it('leaves a newer one alone', async () => {
    await using directory = await temporaryDirectory('ledger')
    const file = join(directory.path, 'replication.sqlite')
    const database = new DatabaseSync(file)
    database.exec('PRAGMA user_version = 99')
    database.close()
    assert.throws(() => new Ledger(file, silentLogger), { name: 'StoreVersionError' })
    assert.ok(!existsSync(`${file}.damaged`))
  })
})
