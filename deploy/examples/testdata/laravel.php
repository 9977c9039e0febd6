<?php
// An application around the snippet: a database, and a page that adds a contact in a
// transaction. php -S runs this file for each request.
error_reporting(E_ALL & ~E_DEPRECATED);
foreach (['Support', 'Database', 'Routing', 'Events', 'Bus', 'Queue', 'Http', 'Log', 'Container', 'Config'] as $part) {
    require_once "Illuminate/$part/autoload.php";
}
spl_autoload_register(function ($class) { // Debian has no autoloader of this part
    $file = stream_resolve_include_path(str_replace('\\', '/', $class) . '.php');
    if ($file) {
        require_once $file;
    }
});
require_once 'Illuminate/Foundation/helpers.php';
require_once 'GuzzleHttp/autoload.php';

use Illuminate\Bus\Queueable;
use Illuminate\Contracts\Queue\ShouldQueue;
use Illuminate\Database\Eloquent\Model;
use Illuminate\Foundation\Bus\Dispatchable;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Facade;
use Illuminate\Support\Facades\Http;
use Illuminate\Support\Facades\Route;
use Illuminate\Support\Facades\Schema;

touch(getcwd() . '/db.sqlite3');
$app = new Illuminate\Foundation\Application(getcwd());
$app->instance('config', new Illuminate\Config\Repository([
    'app' => ['debug' => false], 'logging' => ['default' => 'null', 'channels' => ['null' => ['driver' => 'monolog', 'handler' => Monolog\Handler\NullHandler::class]]],
    'database' => ['default' => 'sqlite', 'connections' => ['sqlite' => ['driver' => 'sqlite', 'database' => getcwd() . '/db.sqlite3', 'prefix' => '']]],
    'queue' => ['default' => 'sync', 'connections' => ['sync' => ['driver' => 'sync']]],
]));
Facade::setFacadeApplication($app);
foreach ([Illuminate\Database\DatabaseServiceProvider::class, Illuminate\Queue\QueueServiceProvider::class, Illuminate\Bus\BusServiceProvider::class] as $provider) {
    $app->register($provider);
}
$app->boot();

class User extends Model
{
    protected $guarded = [];
    public $timestamps = false;
}
SNIPPET
if (!Schema::hasTable('users')) {
    Schema::create('users', fn ($t) => [$t->id(), $t->string('name')]);
    Schema::create('contacts', fn ($t) => [$t->id(), $t->string('owner'), $t->string('jid'), $t->string('name'), $t->timestamps()]);
    User::create(['name' => 'juliet']);
}
Route::get('add', fn () => DB::transaction(fn () => Contact::create(['owner' => 'juliet', 'jid' => 'romeo@example.org', 'name' => 'Romeo'])) ? 'added' : '');

try {
    $app['router']->dispatch(Illuminate\Http\Request::capture())->send();
} catch (Illuminate\Database\Eloquent\ModelNotFoundException $e) { // as Laravel's handler does
    http_response_code(404);
}
