# An application around the snippet, which is in app/models.py: a user, and a page that adds
# a contact of his in a transaction.
import os
from wsgiref.simple_server import make_server

import django
from django.conf import settings

host, port = os.environ["LISTEN"].rsplit(":", 1)
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF="django_urls", DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "app"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}})
django.setup()

import sys, threading, types
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer

from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import transaction
from django.http import HttpResponse
from django.urls import path

from app.models import Contact, contacts

call_command("migrate", run_syncdb=True, verbosity=0)
User.objects.create(username="juliet")

def add(request):
    with transaction.atomic():
        Contact.objects.create(owner=User.objects.get(username="juliet"), jid="romeo@example.org", name="Romeo")
    return HttpResponse("added")

urls = types.ModuleType("django_urls")
urls.urlpatterns = [path("contacts/<str:user>", contacts), path("add", add)]
sys.modules["django_urls"] = urls

class Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True

make_server(host, int(port), get_wsgi_application(), Threaded).serve_forever()
